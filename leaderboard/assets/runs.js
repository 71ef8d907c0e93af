// The runs of a row or a cell, with the commands that repeat them.

const SHOWN = 40;

/** Ids of the runs of a row; with `at` only those of one column, with or without a score. */
function runsOf(row, at = null) {
  const ids = leaderboard.of.get(`${chosenTable.at} ${row.index}`) ?? [];
  if (at === null) return ids;
  const mine = new Set((row.cells[at]?.runs ?? []).map(([, , id]) => String(id)));
  const others = new Set(row.cells.flatMap((cell, i) => i === at ? [] : (cell?.runs ?? []).map(([, , id]) => String(id))));
  return ids.filter(id => mine.has(id) || (!others.has(id) && leaderboard.runs.get(id).task === chosenTable.columns[at]?.cell));
}

/** The same ids, sorted by task and seed. */
function sortedRuns(row, at = null) {
  const task = id => String(leaderboard.runs.get(id).task ?? ""), seed = id => num(leaderboard.runs.get(id).seed) ?? 0;
  return [...runsOf(row, at)].sort((a, b) => task(a).localeCompare(task(b)) || seed(a) - seed(b));
}

function copyButton(text) {
  const button = el("button", {type: "button", onclick: async () => {
    let done = true;
    try { await navigator.clipboard.writeText(text); } catch { done = copyBySelection(button.previousElementSibling); }
    button.textContent = done ? "Copied" : "Press Ctrl-C";
    setTimeout(() => { button.textContent = "Copy"; }, 2000);
  }}, "Copy");
  button.setAttribute("aria-live", "polite");
  return button;
}

/** Copy the selection: browsers give only secure pages access to the clipboard. */
function copyBySelection(element) {
  getSelection().selectAllChildren(element);
  return document.execCommand("copy");
}

function command(run) {
  const text = visible(run.command);
  return text ? el("div", {class: "command"}, el("pre", {tabindex: "0", "aria-label": "command"}, el("code", {}, text)), copyButton(text)) : null;
}

function runItem(id, run, label = "") {
  const column = chosenTable.columns.find(column => column.cell === run.task), up = column ? column.up : null;
  const facts = [["learning rate", num(run.lr) === null ? "" : rate(run.lr)], ["train time", num(run.train_s) === null ? "" : duration(run.train_s)],
    ["device", run.device], ["started", run.created], ["code", run.git && plain(run.git).slice(0, 12)], ["run", id]];
  const warnings = list(run.warnings);
  return el("li", {},
    el("h3", {}, `${label && `${plain(label, 120)}, `}${plain(column ? column.task : run.task, 80)}, seed ${plain(run.seed, 30)}`,
      el("span", {class: "value"}, figure(num(run.value), up)), el("span", {class: run.state === "done" ? "state" : "state bad"}, plain(run.state, 30))),
    el("dl", {class: "facts"}, facts.filter(([, value]) => value).map(([name, value]) => el("div", {}, el("dt", {}, name), el("dd", {}, plain(value, 120))))),
    run.error ? el("pre", {class: "error", tabindex: "0", "aria-label": "error"}, visible(run.error, "\n")) : null,
    warnings.length ? el("ul", {class: "warnings"}, warnings.slice(0, 20).map(text => el("li", {}, plain(text, 1000)))) : null,
    command(run));
}

function runList(ids, most = SHOWN) {
  const items = ids.slice(0, most).map(id => runItem(id, leaderboard.runs.get(id)));
  const made = el("ul", {class: "runs"}, items);
  if (ids.length > most) {
    const rest = el("button", {type: "button", onclick: () => made.replaceWith(runList(ids, Infinity))}, `Show all ${ids.length.toLocaleString("en")}`);
    made.append(el("li", {class: "rest"}, rest));
  }
  return made;
}

function cellLines(row, at) {
  const columns = chosenTable.columns.map((column, i) => ({...column, i})).filter(column => at === null || column.i === at);
  const lines = columns.filter(column => row.cells[column.i]).map(column => {
    const cell = row.cells[column.i];
    return el("tr", {}, el("th", {scope: "row"}, column.task), el("td", {}, score(cell, column.up)), el("td", {}, cell.n ?? NOTHING), el("td", {}, difference(cell.difference, column.up)));
  });
  const head = ["task", "score", "seeds", chosenTable.baseline ? `difference to ${plain(chosenTable.baseline, 40)}` : "difference"];
  return lines.length ? el("div", {class: "box", tabindex: "0", role: "region", "aria-label": "Scores of this row"},
    el("table", {}, el("thead", {}, el("tr", {}, head.map(name => el("th", {scope: "col"}, name)))), el("tbody", {}, lines))) : null;
}

function fillRuns(row, cell) {
  const at = chosenTable.columns.findIndex(column => column.cell === cell), one = at < 0 ? null : at;
  const ids = sortedRuns(row, one);
  const settings = Object.entries(row.settings);
  $("runs-title").textContent = one === null ? row.label : `${row.label} on ${chosenTable.columns[one].task}`;
  $("runs-body").replaceChildren(...[
    el("p", {class: "note"}, chosenTable.heading),
    row.cautions.length || row.notes.length ? el("ul", {class: "warnings"}, row.cautions.map(caution => el("li", {}, `⚠ ${plain(caution.text || caution.code, 1000)}`)), row.notes.map(note => el("li", {}, note))) : null,
    cellLines(row, one),
    settings.length ? el("details", {}, el("summary", {}, "Settings"), el("dl", {class: "facts"}, settings.map(([name, value]) => el("div", {}, el("dt", {}, plain(name, 80)), el("dd", {}, plain(value)))))) : null,
    el("p", {class: "count"}, one === null ? plural(ids.length, "run") : [`${plural(ids.length, "run")} of this task. `, el("button", {type: "button", class: "link", onclick: () => { state.cell = ""; writeAddress(); fillRuns(row, ""); $("close").focus(); }}, "All tasks")]),
    runList(ids),
  ].filter(Boolean));
}

function openRuns(row, cell = "") {
  state.runs = row.id, state.cell = cell;
  writeAddress();
  fillRuns(row, cell);
  if (!$("runs").open) $("runs").showModal();
  $("runs").scrollTop = 0;
}

/** Open or close the dialog as the state says. After new data redraw it, unless the focus is inside. */
function drawRuns(renewed) {
  const row = state.runs && chosenTable.rows.find(row => row.id === state.runs);
  if (!row) return $("runs").open && $("runs").close();
  if (!$("runs").open) openRuns(row, state.cell);
  else if (renewed && !$("runs-body").contains(document.activeElement)) fillRuns(row, state.cell);
}

$("close").addEventListener("click", () => $("runs").close());
$("runs").addEventListener("click", event => { if (event.target === $("runs")) $("runs").close(); });
$("runs").addEventListener("close", () => { state.runs = state.cell = ""; writeAddress(); });
