// What `bench leaderboard serve` shows of runs that are not done: counts, progress of those that train, failures.

const CARDS = 24;
const BAD = ["failed", "oom", "diverged"], UNDONE = ["interrupted", "cancelled", "preempted", "unreadable"];

/** Draw what status.json says; null hides the section. */
function drawStatus(status) {
  $("now").hidden = status === null;
  const selection = getSelection();
  if (status === null || (!selection.isCollapsed && $("now").contains(selection.anchorNode))) return; // someone copies a name
  status = object(status);
  const runs = tally(status.runs), trials = tally(status.trials), hour = num(status.last_hour);
  const claimed = list(status.claimed).map(object), failures = list(status.failures).map(object);
  const hosts = Object.entries(object(status.hosts)).filter(([, number]) => num(number));
  const facts = [hour ? `${plural(hour, "run")} done in the last hour` : "", hosts.length ? `training on ${hosts.slice(0, 6).map(([name, number]) => `${hostName(name)} (${number})`).join(", ")}${hosts.length > 6 ? ` and ${plural(hosts.length - 6, "more host")}` : ""}` : ""];
  $("now-counts").replaceChildren(...(runs.length ? runs : [el("div", {}, el("dt", {}, "runs"), el("dd", {}, "0"))]));
  $("now-trials").hidden = !trials.length;
  $("now-trials-counts").replaceChildren(...trials);
  $("now-facts").textContent = facts.filter(Boolean).join(" · ");
  $("now-running").hidden = !claimed.length;
  $("now-cards").replaceChildren(...claimed.slice(0, CARDS).map(card));
  $("now-rest").textContent = claimed.length > CARDS ? `and ${plural(claimed.length - CARDS, "more run")}: bench status lists them` : "";
  $("now-failed").hidden = !failures.length;
  const failed = [status.runs, status.trials].flatMap(states => BAD.map(state => num(object(states)[state]) ?? 0)).reduce((sum, number) => sum + number, 0);
  const more = Math.max(failed - failures.length, 0); // the server sends the latest
  $("now-failed").firstElementChild.textContent = plural(Math.max(failed, failures.length), "failure");
  $("now-failures").replaceChildren(...failures.map(failure));
  $("now-more").textContent = more > 0 ? `and ${more.toLocaleString("en")} more: bench status lists them` : "";
}

/** A number for each state that some run is in. */
function tally(states) {
  return Object.entries(object(states)).filter(([, number]) => num(number)).map(([state, number]) =>
    el("div", {class: BAD.includes(state) ? "bad" : UNDONE.includes(state) ? "undone" : state === "running" ? "on" : ""},
      el("dt", {}, plain(state, 30)), el("dd", {}, number.toLocaleString("en"))));
}

/** A host without its domain. */
const hostName = name => plain(/^\d/.test(name) ? name : String(name).split(".")[0], 40) || "unknown";

const runName = run => [run.method === null ? "(no record yet)" : plain(run.method, 60), run.task === null ? "" : plain(run.task, 60), num(run.seed) === null ? "" : `seed ${run.seed}`,
  run.trial === true ? "(trial)" : ""].filter(Boolean).join(" ");

function card(run) {
  const [step, steps, left] = [run.step, run.steps, run.left_s].map(num), mark = run.heartbeat === "gone" || run.heartbeat === "stale" ? run.heartbeat : "";
  const known = step !== null && steps, share = known ? Math.min(step / steps, 1) : null, name = runName(run);
  const said = [
    step === null ? "loading" : known ? `step ${step.toLocaleString("en")} of ${steps.toLocaleString("en")}` : `step ${step.toLocaleString("en")}`,
    num(run.loss) === null ? "" : `loss ${general(run.loss, 3)}`, num(run.elapsed_s) === null ? "" : `for ${duration(run.elapsed_s)}`, left === null ? "" : `${duration(left)} left`];
  const age = duration(num(run.heartbeat_s)), seen = mark === "gone" ? "its process has ended" : mark ? `no heartbeat for ${age}` : `heartbeat ${age} ago`;
  return el("li", {class: mark},
    el("h4", {}, el("span", {}, name), el("code", {}, plain(run.run_id, 16).slice(0, 8))),
    el("progress", {max: "1", value: share, "aria-label": `${name}: progress`}),
    el("p", {}, said.filter(Boolean).map(text => text.replaceAll(" ", "\u00a0")).join(" · ")),
    el("p", {}, run.host === null ? "" : `${hostName(run.host)}, process ${plain(run.pid, 20)}, `, mark ? el("span", {class: "caution"}, `⚠ ${seen}`) : seen));
}

function failure(run) {
  return el("li", {}, el("p", {}, el("span", {class: "state bad"}, plain(run.state, 30)), ` ${runName(run)} `, el("code", {}, plain(run.run_id, 16))),
    el("p", {class: "why"}, plain(run.error, 400)),
    run.log ? el("p", {class: "n"}, `traceback in ${plain(run.log, 80)}`) : null);
}

/** Ask the server for the status, and draw it. */
async function renewStatus() {
  const answer = await fetch("status.json", {cache: "no-store"});
  drawStatus(answer.ok ? await answer.json() : null);
}
