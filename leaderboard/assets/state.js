// The data of the page and the state of its view. Data are normalised once: an absent or wrong value is null, a wrong list empty.

const given = JSON.parse($("data").textContent);
const GROUPS = {scores: "Scores", statistics: "Statistics", cost: "Cost", rank: "Rank", training: "Training"};
const NONE = {suite: "", heading: "", backbone: "", source: "", budget: "", split: "", baseline: null, best: false, columns: [], rows: [], notes: [], id: ""};

function stat(value) {
  return value && num(value.mean) !== null ? {mean: value.mean, sd: num(value.sd), n: num(value.n)} : null;
}

function diff(value) {
  if (!value || num(value.mean) === null) return null;
  return {mean: value.mean, low: num(value.low), high: num(value.high), iqm: num(value.iqm), seeds: num(value.seeds), tasks: num(value.tasks)};
}

function normaliseCell(cell) {
  const made = stat(cell);
  return made && {...made, metric: cell.metric ?? "", runs: list(cell.runs).filter(Array.isArray), difference: diff(cell.difference), leads: cell.leads === true, best: stat(cell.best)};
}

const NUMBERS = ["rank", "iqm", "average_rank", "trainable", "share", "stored_bytes", "train_s", "peak_memory_bytes", "needed", "needed_above", "nominal",
  "effective", "stable", "norm", "trials"];

function normaliseRow(row, columns) {
  const cells = list(row.cells).map(normaliseCell), done = list(row.complete);
  const made = {label: plain(row.label) || "(no name)", method: plain(row.method, 80) || "(no method)", settings: object(row.settings)};
  for (const name of NUMBERS) made[name] = num(row[name]);
  return {...made,
    published: row.published ? Object.fromEntries(["source", "arxiv", "note"].map(name => [name, plain(object(row.published)[name], 1000)])) : null,
    average: stat(row.average), best_average: stat(row.best_average), difference: diff(row.difference), cells: columns.map((_, i) => cells[i] ?? null),
    complete: [num(done[0]) ?? cells.filter(Boolean).length, num(done[1]) ?? columns.length],
    layers: list(row.layers).filter(Array.isArray).map(([layer, ...values]) => [plain(layer, 200), ...values.map(num)]),
    lrs: list(row.lrs).filter(lr => num(lr) !== null), selected: row.selected === true, at_edge: row.at_edge === true, average_leads: row.average_leads === true, learned_nothing: row.learned_nothing === true, states: object(row.states),
    devices: list(row.devices), groups: list(row.group_ids).map(id => plain(id, 16)), cautions: list(row.cautions).map(object), notes: list(row.notes).map(note => plain(note, 1000))};
}

function normaliseTable(table, at) {
  const columns = list(table.columns).map(object).map(column => ({task: plain(column.task, 60), cell: column.task_id ?? column.task,
    metric: plain(column.metric, 60), split: plain(column.split, 60), data: plain(column.data, 60), note: plain(column.note, 1000),
    up: typeof column.higher_is_better === "boolean" ? column.higher_is_better : null}));
  const seen = new Map();
  const rows = list(table.rows).map(object).map((row, index) => {
    const made = normaliseRow(row, columns), name = `${made.published ? "published " : ""}${made.label}`;
    seen.set(name, (seen.get(name) ?? 0) + 1);
    return {...made, index, id: key(name + (seen.get(name) > 1 ? seen.get(name) : ""))};
  });
  const words = {};
  for (const name of ["suite", "heading", "backbone", "source", "budget", "split"]) words[name] = plain(table[name], 400);
  const ups = new Set(columns.map(column => column.up));
  return {...words, at, id: key(words.heading), columns, rows, notes: list(table.notes).map(note => plain(note, 1000)), up: ups.size === 1 ? [...ups][0] : null, baseline: table.baseline ? plain(table.baseline) : null, best: table.best === true};
}

function normalise(leaderboard) {
  leaderboard = object(leaderboard);
  const tables = list(leaderboard.tables).map(object).map(normaliseTable);
  const runs = new Map(Object.entries(object(leaderboard.runs)).map(([id, run]) => [id, object(run)])), of = new Map();
  for (const [id, run] of runs) {
    const place = `${run.table} ${run.row}`;
    if (!of.has(place)) of.set(place, []);
    of.get(place).push(id);
  }
  const methods = [...new Set(tables.flatMap(table => table.rows.map(row => row.method)))].sort();
  return {title: plain(leaderboard.title), problems: list(leaderboard.problems), notes: list(leaderboard.notes), trials: num(leaderboard.trials) ?? 0, tables, runs, of, methods};
}

let leaderboard = normalise(given.leaderboard);

// State of the view. The address holds all of it, so that users can link to a view.
const state = {};
const DEFAULTS = {suite: "", backbone: "", source: "", table: "", score: "", sort: "", down: false, find: "", measure: "effective",
  what: "loss", task: "", seed: "", draw: "", runs: "", cell: ""};
const HIDDEN = ["notask", "nomethod", "nocolumns"];

function readAddress() {
  const query = new URLSearchParams(location.hash.slice(1));
  for (const [name, blank] of Object.entries(DEFAULTS)) {
    state[name] = typeof blank === "boolean" ? query.has(name) : query.get(name) ?? blank;
  }
  for (const name of HIDDEN) state[name] = new Set(query.getAll(name));
}

function writeAddress() {
  const query = new URLSearchParams();
  for (const [name, blank] of Object.entries(DEFAULTS)) if (state[name] !== blank) query.set(name, state[name] === true ? "" : state[name]);
  for (const name of HIDDEN) for (const value of state[name]) query.append(name, value);
  history.replaceState(null, "", `#${query}`);
}

const FACETS = ["suite", "backbone", "source"];
const fits = (table, names = FACETS) => names.every(name => !state[name] || table[name] === state[name]);
const chosen = () => {
  const fitting = leaderboard.tables.filter(table => fits(table));
  return fitting.find(table => table.id === state.table) ?? fitting[0] ?? leaderboard.tables[0] ?? NONE;
};

/** Rows that match the filters. */
function shownRows(table) {
  const words = state.find.toLowerCase().split(/\s+/).filter(Boolean);
  return table.rows.filter(row => {
    if (state.nomethod.has(row.method)) return false;
    if (!words.length) return true;
    const all = [row.label, ...Object.entries(row.settings).map(([name, value]) => `${name}=${value}`)].join(" ").toLowerCase();
    return words.every(word => all.includes(word));
  });
}

const shownColumns = table => table.columns.map((column, i) => ({...column, i})).filter(column => !state.notask.has(column.task));

const DRAWN = 8;

/** Rows whose ranks and curves are drawn: the chosen ones, else the first few. */
function drawnRows(table) {
  const shown = shownRows(table).filter(row => !row.published);
  if (state.draw === "none") return [];
  const asked = new Set(state.draw.split(".").filter(Boolean));
  return asked.size ? shown.filter(row => asked.has(row.id)) : shown.slice(0, DRAWN - 2);
}

function toggleDrawn(table, row) {
  const ids = new Set(drawnRows(table).map(other => other.id));
  if (!ids.delete(row.id)) ids.add(row.id);
  state.draw = [...ids].join(".") || "none";
}

// Colours: each method has its own; if several rows of a method are drawn together, the others get unused colours.
const dark = matchMedia("(prefers-color-scheme: dark)"), paper = matchMedia("print"), narrow = matchMedia("(max-width: 760px)");
const colours = () => dark.matches && !paper.matches ? given.palette.dark : given.palette.light;

function look(index) {
  const {light, markers} = given.palette;
  return {colour: index % light.length, marker: markers[(index + Math.floor(index / light.length)) % markers.length]};
}

const methodLook = method => look(Math.max(0, leaderboard.methods.indexOf(method)));

function rowLooks(rows) {
  const found = new Map(), taken = new Set();
  for (const row of rows) {
    const own = methodLook(row.method);
    if (!taken.has(own.colour)) found.set(row.id, own), taken.add(own.colour);
  }
  let next = 0;
  for (const row of rows.filter(row => !found.has(row.id))) {
    while (taken.has(look(next).colour) && taken.size < given.palette.light.length) next++;
    found.set(row.id, look(next)), taken.add(look(next++).colour);
  }
  return found;
}
