"""Reading of images: a format gives a `source`, `prepare` decodes and caches it, `dataset` checks the result.

Whatever cannot be read is a `DataProblem` that names the file and the place in it.

Formats are read by our own code (`files`, `arrays`): it names every bad image, unpacks nothing and
loads no pickle. `imagefolder` of `datasets` unpacks archives; timm's tar reader keeps a pickled index and reads no
.tar.xz; torchvision reads idx files with assertions and CIFAR from pickles.
"""
