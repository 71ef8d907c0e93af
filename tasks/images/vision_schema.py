"""The vision tasks' folders, classes and repositories on the hub."""

from __future__ import annotations

from tasks.images.hub import Repository
from tasks.images.sources import Vision
from tasks.io.directories import Wanted

FASHION = ("T-shirt/top", "Trouser", "Pullover", "Dress", "Coat", "Sandal", "Shirt", "Sneaker", "Bag", "Ankle boot")
CIFAR10 = ("airplane", "automobile", "bird", "cat", "deer", "dog", "frog", "horse", "ship", "truck")
CIFAR100 = (
    "apple aquarium_fish baby bear beaver bed bee beetle bicycle bottle bowl boy bridge bus butterfly camel can castle "
    "caterpillar cattle chair chimpanzee clock cloud cockroach couch crab crocodile cup dinosaur dolphin elephant "
    "flatfish forest fox girl hamster house kangaroo keyboard lamp lawn_mower leopard lion lizard lobster man "
    "maple_tree motorcycle mountain mouse mushroom oak_tree orange orchid otter palm_tree pear pickup_truck pine_tree "
    "plain plate poppy porcupine possum rabbit raccoon ray road rocket rose sea seal shark shrew skunk skyscraper "
    "snail snake spider squirrel streetcar sunflower sweet_pepper table tank telephone television tiger tractor train "
    "trout tulip turtle wardrobe whale willow_tree wolf woman worm"
)


def _vision(task: str, folders: tuple[str, ...], classes: tuple[str, ...], repository: Repository) -> Vision:
    wanted = Wanted(
        task=task,
        entries=(task,),
        folders=folders,
        expected=f"a folder {folders[0]}",
        how=f"Name its folder with --data-dir {task}=DIR, or a folder that holds a folder {folders[0]} with "
        "--data-dir DIR.",
    )
    return Vision(wanted=wanted, repository=repository, classes=classes)


KNOWN: dict[str, Vision] = {
    "mnist": _vision(
        "mnist",
        ("mnist",),
        tuple("0123456789"),
        Repository(name="ylecun/mnist", config="mnist", revision="77f3279092a1c1579b2250db8eafed0ad422088c"),
    ),
    "fashion-mnist": _vision(
        "fashion-mnist",
        ("fashionmnist", "fmnist"),
        FASHION,
        Repository(
            name="zalando-datasets/fashion_mnist",
            config="fashion_mnist",
            revision="531be5e2ccc9dba0c201ad3ae567a4f3d16ecdd2",
        ),
    ),
    "cifar10": _vision(
        "cifar10",
        ("cifar10", "cifar10jpeg", "cifar10png", "cifar10images", "cifar10binary", "cifar10batchesbin"),
        CIFAR10,
        Repository(name="uoft-cs/cifar10", config="plain_text", revision="0b2714987fa478483af9968de7c934580d0bb9a2"),
    ),
    "cifar100": _vision(
        "cifar100",
        ("cifar100", "cifar100jpeg", "cifar100png", "cifar100images", "cifar100binary"),
        tuple(CIFAR100.split()),
        Repository(name="uoft-cs/cifar100", config="cifar100", revision="aadb3af77e9048adbea6b47c21a81e47dd092ae5"),
    ),
}
