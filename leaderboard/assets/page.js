// The controls and events of the page, live updates while a grid runs, and printing.

let chosenTable = NONE, waiting = 0;

/** Options of a select, as `[value, text]`. */
function fill(select, options, value) {
  select.replaceChildren(...options.map(([value, text]) => el("option", {value}, text)));
  select.value = options.some(([known]) => known === value) ? value : options[0]?.[0] ?? "";
  select.disabled = options.length < 2;
}

function boxes(id, name, entries) {
  $(id).replaceChildren(...entries.map(([value, text, symbol]) => {
    const box = el("input", {type: "checkbox", "data-focus": `${id} ${value}`, onchange: () => {
      state[name][box.checked ? "delete" : "add"](value);
      refresh();
    }});
    box.checked = !state[name].has(value);
    return el("label", {}, box, symbol, text);
  }));
  $(id).parentElement.hidden = entries.length < 2;
}

function drawControls(table) {
  for (const [i, facet] of FACETS.entries()) {
    const others = FACETS.slice(0, i), known = [...new Set(leaderboard.tables.filter(table => fits(table, others)).map(table => table[facet]))].sort();
    if (state[facet] && !known.includes(state[facet])) state[facet] = "";
    fill($(facet), [["", "all"], ...known.map(value => [value, plain(value, 60) || NOTHING])], state[facet]);
    $(facet).parentElement.hidden = known.length < 2;
  }
  fill($("table-of"), leaderboard.tables.filter(table => fits(table)).map(table => [table.id, plain([table.suite, table.backbone, table.source, table.budget].filter(Boolean).join(" · "), 110)]), table.id);
  const facts = [["suite", table.suite], ["backbone", table.backbone], ["data", table.source], ["budget", table.budget], ["scored on", table.split], ["baseline", table.baseline]];
  $("facts").replaceChildren(...facts.filter(([, value]) => value).map(([name, value]) => el("div", {}, el("dt", {}, name), el("dd", {}, value))));
  boxes("methods", "nomethod", [...new Set(table.rows.map(row => row.method))].sort().map(method => [method, plain(method, 40), swatch(methodLook(method))]));
  boxes("tasks", "notask", [...new Set(table.columns.map(column => column.task))].map(task => [task, task]));
  boxes("groups", "nocolumns", Object.entries(GROUPS));
  if ($("find").value !== state.find) $("find").value = state.find;
  const scores = table.columns.map(column => [column.cell, column.task]);
  fill($("score"), table.columns.length > 1 ? [["", "average"], ...scores] : scores, state.score);
  if (!scores.some(([cell]) => cell === state.score)) state.score = "";
  fill($("curve-what"), Object.entries(CURVES).map(([value, [text]]) => [value, text]), state.what);
  fill($("curve-task"), scores, state.task);
  state.task = $("curve-task").value;
  for (const radio of document.querySelectorAll("[name=measure]")) radio.checked = radio.value === state.measure;
}

function drawPlots(table) {
  if (!window.Plotly) return; // library.js draws the plots after loading plotly
  const rows = drawnRows(table), looks = rowLooks(rows);
  drawPareto(table);
  drawChips(table, rows, looks);
  drawRanks(table, rows, looks);
  drawCurves(table, rows, looks);
}

/** Redraw everything or only the table. Plots follow after a pause, once for several changes. */
function refresh(what = "all", {renewed = false, pause = 0} = {}) {
  const focus = document.activeElement?.dataset?.focus, table = chosenTable = chosen();
  if (what === "all") drawControls(table);
  const rows = drawTable(table), shown = rows.length === table.rows.length ? plural(rows.length, "row") : `${rows.length.toLocaleString("en")} of ${plural(table.rows.length, "row")}`;
  const text = `${shown} shown, of ${plural(leaderboard.runs.size, "run")} in ${plural(leaderboard.tables.length, "table")}.`;
  if ($("count").textContent !== text) $("count").textContent = text;
  // redrawing replaced the element in use; give its successor the focus
  if (focus && !document.activeElement?.dataset?.focus) document.querySelector(`[data-focus="${CSS.escape(focus)}"]`)?.focus({preventScroll: true});
  writeAddress();
  drawRuns(renewed);
  if (what === "table") return;
  clearTimeout(waiting);
  waiting = setTimeout(() => drawPlots(chosenTable), pause); // a pause while someone types
}

function drawHeader() {
  document.title = leaderboard.title || document.title;
  document.querySelector("h1").textContent = document.title;
  $("problems").hidden = !leaderboard.problems.length;
  $("problem-list").replaceChildren(...leaderboard.problems.slice(0, 200).map(text => el("li", {}, plain(text, 1000))),
    leaderboard.problems.length > 200 ? el("li", {}, `and ${leaderboard.problems.length - 200} more`) : "");
  const trials = leaderboard.trials ? [`Not shown: ${plural(leaderboard.trials, "run")} on held-out training examples that selected a learning rate.`] : [];
  $("page-notes").replaceChildren(...[...trials, ...leaderboard.notes].map(text => el("li", {}, plain(text, 1000))));
}

for (const facet of FACETS) $(facet).addEventListener("change", event => { state[facet] = event.target.value; state.table = chosen().id; refresh(); });
$("table-of").addEventListener("change", event => { state.table = event.target.value; allRows = false; refresh(); });
$("find").addEventListener("input", event => { state.find = event.target.value; refresh("all", {pause: 150}); });
$("score").addEventListener("change", event => { state.score = event.target.value; refresh(); });
$("curve-what").addEventListener("change", event => { state.what = event.target.value; refresh(); });
$("curve-task").addEventListener("change", event => { state.task = event.target.value; refresh(); });
$("curve-seed").addEventListener("change", event => { state.seed = event.target.value; refresh(); });
for (const radio of document.querySelectorAll("[name=measure]")) radio.addEventListener("change", () => { state.measure = radio.value; refresh(); });
$("reset").addEventListener("click", () => { for (const name of HIDDEN) state[name].clear(); state.find = ""; refresh(); });
// the address holds the view, so this link must not change it
document.querySelector(".skip").addEventListener("click", event => { event.preventDefault(); $("scores").focus(); $("scores").scrollIntoView(); });
addEventListener("hashchange", () => { readAddress(); refresh(); });
for (const query of [dark, narrow]) query.addEventListener("change", () => refresh());

paper.addEventListener("change", () => {
  const wanted = paper.matches && $("with-appendix").checked;
  $("appendix").hidden = !wanted;
  $("appendix-list").replaceChildren(...(wanted ? shownRows(chosenTable).flatMap(row => sortedRuns(row).map(id => runItem(id, leaderboard.runs.get(id), row.label))) : []));
  drawPlots(chosenTable); // paper always has light colours
});

/** Poll the server, which sends new data only if records have changed. */
async function poll(seconds) {
  let tag = given.tag ?? "";
  $("live").hidden = false;
  const announce = text => { if ($("live").textContent !== text) $("live").textContent = text; };
  announce("Live: the page shows new runs automatically.");
  for (let first = true; ; first = false) {
    if (!first) await new Promise(resolve => setTimeout(resolve, 1000 * seconds));
    if (document.hidden && !first) continue;
    try {
      await renewStatus();
      const answer = await fetch("leaderboard.json", {cache: "no-store", headers: tag ? {"If-None-Match": tag} : {}});
      if (answer.status === 304) continue;
      if (!answer.ok) throw new Error(answer.statusText);
      const next = normalise(await answer.json()), more = next.runs.size - leaderboard.runs.size;
      tag = answer.headers.get("ETag") ?? "";
      leaderboard = next;
      announce(`Live: ${more > 0 ? plural(more, "new run") : "records changed"} at ${new Date().toLocaleTimeString()}.`);
      drawHeader();
      refresh("all", {renewed: true});
    } catch (error) {
      announce(`Not live any more: ${plain(error.message)}. The page shows the last data received.`);
    }
  }
}

readAddress();
if (narrow.matches) $("filters").open = $("now-failed").open = false;
drawHeader();
refresh();
if (given.live) poll(given.live);
