// Plots of the rows of the chosen table that match the filters.

function ink() {
  const style = getComputedStyle(document.documentElement);
  return Object.fromEntries(["ink", "soft", "line", "back"].map(name => [name, style.getPropertyValue(`--${name}`).trim()]));
}

function axis(title, more = {}) {
  const {ink: colour, line} = ink();
  return {title: {text: title, font: {size: 13}, standoff: 10}, gridcolor: line, linecolor: line, zeroline: false, color: colour, automargin: true,
    ticklen: 4, tickcolor: line, exponentformat: "power", ...more};
}

function plot(id, traces, xaxis, yaxis, more = {}) {
  const {ink: colour, back, line} = ink(), coarse = matchMedia("(pointer: coarse)").matches;
  return Plotly.react($(id), traces.map(trace => ({showlegend: false, hoverinfo: "text", ...trace})), {
    xaxis, yaxis, font: {color: colour, family: "system-ui, sans-serif", size: 12}, paper_bgcolor: "rgba(0,0,0,0)", plot_bgcolor: "rgba(0,0,0,0)",
    margin: {l: 56, r: 14, t: 12, b: 48}, hovermode: "closest", dragmode: coarse ? false : "zoom",
    hoverlabel: {bgcolor: back, bordercolor: line, font: {color: colour, size: 12}, align: "left", namelength: 0}, ...more,
    // a printed page has another size and gets no resize event
    ...(paper.matches ? {autosize: false, width: $(id).clientWidth, height: $(id).clientHeight} : {autosize: true, width: null, height: null}),
  }, {responsive: true, displaylogo: false, displayModeBar: false, scrollZoom: false});
}

function say(id, text) {
  $(id).setAttribute("aria-label", text);
}

// SVG paths of the markers that plotly draws, for legends.
const SHAPES = {circle: "M5 1a4 4 0 1 1 0 8a4 4 0 1 1 0-8z", square: "M1.5 1.5h7v7h-7z", "triangle-up": "M5 1l4.5 8h-9z", diamond: "M5 0l5 5-5 5-5-5z",
  "triangle-down": "M5 9l4.5-8h-9z", x: "M1 3l2-2 2 2 2-2 2 2-2 2 2 2-2 2-2-2-2 2-2-2 2-2z", cross: "M3.5 0h3v3.5H10v3H6.500V10h-3V6.500H0v-3h3.500z"};

function swatch(look) {
  const svg = document.createElementNS("http://www.w3.org/2000/svg", "svg"), path = document.createElementNS("http://www.w3.org/2000/svg", "path");
  for (const [name, value] of [["viewBox", "0 0 10 10"], ["class", "swatch"], ["aria-hidden", "true"]]) svg.setAttribute(name, value);
  path.setAttribute("d", SHAPES[look.marker] ?? SHAPES.circle);
  path.setAttribute("fill", colours()[look.colour]);
  svg.append(path);
  return svg;
}

function scoreOf(row, table) {
  const at = table.columns.findIndex(column => column.cell === state.score);
  return at < 0 ? (table.columns.length === 1 ? row.cells[0] : row.average) : row.cells[at];
}

/** Pareto front, by rising cost: points with a better score than every point of the same or lower cost. */
function paretoFront(points, up) {
  const ordered = [...points].sort((a, b) => a.x - b.x || (up ? b.y - a.y : a.y - b.y)), kept = [];
  for (const point of ordered) if (!kept.length || (up ? point.y > kept.at(-1).y : point.y < kept.at(-1).y)) kept.push(point);
  return kept;
}

function pointText({row, stat, name}, up) {
  const lines = [`<b>${markup(row.label)}</b>`, `${markup(name)} ${score(stat, up)}${stat.n ? ` (n = ${stat.n})` : ""}`, `${trained(row.trainable, row.share)} trained parameters`];
  if (row.effective !== null) lines.push(`effective rank ${fixed(row.effective, 1)}${row.nominal === null ? "" : ` of ${fixed(row.nominal, 1)}`}`);
  lines.push(...row.cautions.slice(0, 4).map(caution => `⚠ ${markup(caution.text || caution.code)}`));
  lines.push(row.published ? `published: ${markup(row.published.source)}` : "<i>click: its runs</i>");
  return lines.join("<br>");
}

function drawPareto(table) {
  const at = table.columns.findIndex(column => column.cell === state.score), column = table.columns[at] ?? (table.columns.length === 1 ? table.columns[0] : null);
  const up = column ? column.up : table.up, name = column ? column.task : `average of ${table.columns.length} tasks`;
  const rows = shownRows(table), points = rows.map(row => ({row, stat: scoreOf(row, table), x: row.trainable, name}))
    .filter(({stat, x}) => stat && x !== null && x > 0).map(point => ({...point, y: point.stat.mean}));
  const own = points.filter(point => !point.row.published), best = up === null ? [] : paretoFront(own, up);
  const traces = [], right = Math.max(...points.map(point => point.x));
  if (best.length) {
    traces.push({type: "scatter", mode: "lines", x: [...best.map(point => point.x), right], y: [...best.map(point => point.y), best.at(-1).y],
      line: {shape: "hv", color: ink().soft, width: 1.5}, hoverinfo: "skip"});
  }
  const base = table.baseline && table.rows.find(row => row.label === table.baseline && !row.published), level = base && scoreOf(base, table);
  for (const [method, mine] of Map.groupBy ? Map.groupBy(points, point => point.row.method) : groups(points)) {
    const {colour, marker} = methodLook(method), paint = colours()[colour];
    traces.push({type: "scatter", mode: narrow.matches || points.length > 40 ? "markers" : "markers+text", x: mine.map(point => point.x), y: mine.map(point => point.y),
      hovertext: mine.map(point => pointText(point, up)), customdata: mine.map(point => point.row.id),
      text: mine.map(point => best.includes(point) ? markup(point.row.label, 26) : ""), textposition: up === false ? "bottom left" : "top left", textfont: {size: 11, color: ink().soft},
      marker: {symbol: mine.map(point => point.row.published ? `${marker}-open` : marker), color: paint, size: mine.map(point => best.includes(point) ? 12 : 9),
        line: {color: ink().back, width: mine.map(point => point.row.published ? 2 : 1)}},
      error_y: {type: "data", array: mine.map(point => point.stat.sd ?? 0), color: paint, thickness: 1.2, width: 3}});
  }
  const shapes = level ? [{type: "line", xref: "paper", x0: 0, x1: 1, y0: level.mean, y1: level.mean, line: {color: ink().soft, width: 1, dash: "dot"}}] : [];
  const annotations = level ? [{xref: "paper", x: 0, xanchor: "left", y: level.mean, yanchor: "bottom", showarrow: false, text: `baseline: ${markup(table.baseline, 30)}`, font: {size: 11, color: ink().soft}}] : [];
  const metric = column ? column.metric : "", better = up === null ? "" : up ? " (higher is better)" : " (lower is better)";
  const ends = points.length ? [Math.log10(Math.min(...points.map(point => point.x))), Math.log10(right)] : [3, 7], span = Math.max(1, ends[1] - ends[0]);
  const range = [ends[0] - (narrow.matches ? .06 : .14) * span, ends[1] + .06 * span]; // room for labels to the left of their points
  plot("pareto", traces, axis("trained parameters", {type: "log", range, ...logTicks(points.length ? points.map(point => point.x) : [1e3, 1e7], short)}),
    axis(markup([name, metric].filter(Boolean).join(", ") + better)), {shapes, annotations});
  drawLegend("pareto-legend", [...new Set(points.map(point => point.row.method))].sort().map(method => [methodLook(method), method]));
  const left = rows.length - points.length;
  say("pareto", `${name} against trained parameters: ${plural(points.length, "row")}. On the front: ${best.map(point => plain(point.row.label, 40)).join(", ") || "none"}. The table below holds the numbers.`);
  $("pareto-note").textContent = [best.length && "Line and large markers: the Pareto front, rows with a better score than every row with as few parameters.", "Whiskers: s.d. over seeds.",
    points.some(point => point.row.published) && "Open markers: published scores, not part of the front.",
    left > 0 && `${plural(left, "row")} without this score or without trained parameters ${left > 1 ? "are" : "is"} not drawn.`].filter(Boolean).join(" ");
}

function groups(points) {
  const found = new Map();
  for (const point of points) found.set(point.row.method, [...found.get(point.row.method) ?? [], point]);
  return found;
}

function drawLegend(id, entries) {
  $(id).replaceChildren(...entries.map(([look, name]) => el("li", {}, swatch(look), plain(name, 60))));
}

function drawChips(table, rows, looks) {
  for (const legend of document.querySelectorAll(".legend.drawn")) {
    legend.replaceChildren(...rows.map(row => el("li", {}, el("button", {type: "button", "data-focus": `${legend.parentElement.id} ${row.id}`, "aria-label": `leave out ${row.label}`, title: "leave out",
      onclick: () => { toggleDrawn(table, row); refresh(); }}, swatch(looks.get(row.id)), plain(row.label, 60), el("span", {"aria-hidden": "true", class: "cross"}, "×")))));
  }
}

/** The kind of a layer, which is its name without numbers, and its numbers: `attention.self.query` and `3`. */
function layerParts(layer) {
  const parts = layer.split("."), numbers = parts.filter(part => /^\d+$/.test(part));
  return {kind: parts.filter(part => !/^\d+$/.test(part)).join(".") || layer, number: numbers.join("."), layer};
}

/** Positions on the x axis: layers grouped by kind, ordered by number, with a gap between kinds. */
function layerPlaces(rows) {
  const known = [...new Set(rows.flatMap(row => row.layers.map(([layer]) => layer)))].map(layerParts);
  const kinds = [...new Set(known.map(one => one.kind))];
  const ordered = kinds.map(kind => known.filter(one => one.kind === kind).sort((a, b) => a.number.localeCompare(b.number, "en", {numeric: true})));
  const places = new Map();
  let at = 0;
  const spans = ordered.map((ones, i) => {
    const start = at;
    for (const one of ones) places.set(one.layer, at++);
    at++;
    return {kind: kinds[i], ones, start, end: at - 2};
  });
  return {places, spans};
}

/** Kinds without their common first parts. */
function shortKinds(kinds) {
  const parts = kinds.map(kind => kind.split("."));
  let same = 0;
  while (kinds.length > 1 && parts.every(part => part.length > same + 1 && part[same] === parts[0][same])) same++;
  const bare = parts.map(part => part.slice(same)), tail = (part, length) => part.slice(-length).join(".");
  return bare.map((part, i) => {
    let length = Math.min(2, part.length);
    while (length < part.length && bare.some((other, j) => i !== j && tail(other, length) === tail(part, length))) length++;
    return tail(part, length);
  });
}

/** An axis of ranks, logarithmic if they differ by more than a factor of 20. */
function rankAxis(title, values) {
  const known = values.filter(value => value !== null && value > 0), wide = known.length && Math.max(...known) / Math.min(...known) > 20;
  return axis(title, wide ? {type: "log", ...logTicks(known, value => general(value, 6))} : {rangemode: "tozero"});
}

/** Ticks of a logarithmic axis at 1, 2 and 5 of each decade, or only at 1 if they would overlap. */
function logTicks(values, show) {
  const low = Math.floor(Math.log10(Math.min(...values))) - 1, high = Math.ceil(Math.log10(Math.max(...values))) + 1;
  const steps = Math.log10(Math.max(...values) / Math.min(...values)) * 3 > (narrow.matches ? 5 : 14) ? [1] : [1, 2, 5];
  const at = Array.from({length: high - low + 1}, (_, i) => low + i).flatMap(power => steps.map(step => step * 10 ** power));
  return {tickmode: "array", tickvals: at, ticktext: at.map(show)};
}

const short = value => value >= 1e6 ? `${general(value / 1e6, 3)} M` : value >= 1e3 ? `${general(value / 1e3, 3)} k` : general(value, 3);

function drawRanks(table, rows, looks) {
  const measure = state.measure === "stable" ? "stable" : "effective", at = measure === "stable" ? 3 : 2;
  const able = rows.filter(row => row.nominal !== null || row[measure] !== null || row.layers.length), paint = row => colours()[looks.get(row.id).colour];
  const named = able.map(row => markup(row.label, narrow.matches ? 16 : 30));
  const dumbbells = able.flatMap((row, i) => [
    {type: "scatter", mode: "lines", x: [row[measure], row.nominal], y: [i, i], line: {color: paint(row), width: 2}, opacity: .45, hoverinfo: "skip"},
    {type: "scatter", mode: "markers", x: [row.nominal], y: [i], marker: {symbol: "line-ns-open", size: 16, color: paint(row), line: {width: 2, color: paint(row)}}, hovertext: [`<b>${named[i]}</b><br>nominal ${row.nominal === null ? NOTHING : fixed(row.nominal, 1)}`]},
    {type: "scatter", mode: "markers", x: [row[measure]], y: [i], customdata: [row.id], marker: {symbol: looks.get(row.id).marker, size: 11, color: paint(row)},
      hovertext: [`<b>${named[i]}</b><br>${measure} ${row[measure] === null ? NOTHING : fixed(row[measure], 2)}<br>nominal ${row.nominal === null ? NOTHING : fixed(row.nominal, 1)}`]}]);
  plot("used", dumbbells, rankAxis("rank", able.flatMap(row => [row.nominal, row[measure]])), axis("", {tickmode: "array", tickvals: able.map((_, i) => i), ticktext: named, range: [able.length - .5, -.5], showgrid: false, fixedrange: true}));
  const {places, spans} = layerPlaces(able), names = shortKinds(spans.map(span => span.kind)), count = places.size, every = Math.max(1, Math.ceil(count / (narrow.matches ? 12 : 30)));
  const lines = able.flatMap(row => spans.flatMap(({ones}) => {
    const mine = ones.map(one => row.layers.find(([layer]) => layer === one.layer)).filter(Boolean), x = mine.map(([layer]) => places.get(layer));
    if (!mine.length) return [];
    return [{type: "scatter", mode: "lines", x, y: mine.map(layer => layer[1]), line: {color: paint(row), dash: "dash", width: 1.2}, opacity: .7, hoverinfo: "skip"},
      {type: "scatter", mode: "lines+markers", x, y: mine.map(layer => layer[at] ?? null), line: {color: paint(row), width: 2}, marker: {symbol: looks.get(row.id).marker, size: 7, color: paint(row)},
        hovertext: mine.map(layer => `<b>${markup(row.label)}</b><br>${markup(layer[0])}<br>${measure} ${layer[at] === null ? NOTHING : fixed(layer[at], 2)} of ${layer[1] === null ? NOTHING : fixed(layer[1], 1)}`)}];
  }));
  const ticks = [...places].filter((_, i) => i % every === 0);
  const letters = Math.max(4, Math.floor(($("layers").clientWidth - 70) / spans.length / 7.5)); // a letter is about so wide
  const annotations = spans.length > 12 ? [] : spans.map((span, i) => ({x: (span.start + span.end) / 2, xref: "x", y: 1, yref: "paper", yanchor: "bottom", showarrow: false, text: markup(letters < 12 ? names[i].split(".").at(-1) : names[i], letters), font: {size: 11, color: ink().soft}}));
  plot("layers", lines, axis("layer", {tickmode: "array", tickvals: ticks.map(([, place]) => place), ticktext: ticks.map(([layer]) => markup(layerParts(layer).number || layer, 12)), showgrid: false}),
    rankAxis(`${measure} rank`, able.flatMap(row => row.layers.flatMap(layer => [layer[1], layer[at] ?? null]))), {annotations, margin: {l: 56, r: 14, t: 28, b: 48}});
  say("used", `Mean ${measure} rank against nominal rank of ${plural(able.length, "row")}: ${able.map(row => `${plain(row.label, 40)} ${row[measure] === null ? "unknown" : fixed(row[measure], 1)} of ${row.nominal === null ? "unknown" : fixed(row.nominal, 1)}`).join("; ")}.`);
  say("layers", `${measure} rank of ΔW by layer, ${plural(count, "layer")}, of ${plural(able.length, "row")}. The table holds the means over layers.`);
  const without = rows.length - able.length;
  $("ranks-note").textContent = [able.length ? `Markers: ${measure} rank of ΔW, mean over runs. Bars and dashes: nominal rank, which the method allows.` : "None of the rows drawn has a ΔW.",
    able.length && without > 0 && `${plural(without, "row")} without a ΔW: not drawn.`, "Rows are chosen in the table."].filter(Boolean).join(" ");
}

const CURVES = {loss: ["training loss", "curve"], score: ["score over training", "evaluations"], rank: ["effective rank of ΔW", "rank_curve"],
  cut: ["score with ΔW cut to rank k", "truncation", "k"]};

/** The mean of several curves at their common steps. */
function meanCourse(courses) {
  const maps = courses.map(course => new Map(course)), steps = [...maps[0].keys()].filter(step => maps.every(map => map.has(step)));
  return steps.map(step => [step, maps.reduce((sum, map) => sum + map.get(step), 0) / maps.length]);
}

/** Curves of a row on the chosen task, by seed. */
function coursesOf(row, field) {
  const found = [];
  for (const id of runsOf(row)) {
    const run = leaderboard.runs.get(id), points = list(run[field]).filter(point => Array.isArray(point) && num(point[0]) !== null && num(point[1]) !== null);
    if (run.task === state.task && points.length) found.push([String(run.seed), points]);
  }
  return found;
}

function drawCurves(table, rows, looks) {
  const [name, field, along = "step"] = CURVES[state.what] ?? CURVES.loss, seeds = new Set(), lines = [];
  for (const row of rows) {
    const courses = coursesOf(row, field), colour = colours()[looks.get(row.id).colour];
    for (const [seed] of courses) seeds.add(seed);
    const wanted = state.seed === "" && courses.length > 1 ? [[`mean of ${courses.length} seeds`, meanCourse(courses.map(([, points]) => points))]]
      : courses.filter(([seed]) => state.seed === "" || state.seed === "all" || seed === state.seed).map(([seed, points]) => [`seed ${seed}`, points]);
    lines.push(...wanted.map(([which, points]) => ({type: "scatter", mode: points.length > 12 ? "lines" : "lines+markers", x: points.map(([step]) => step), y: points.map(([, value]) => value),
      customdata: points.map(() => row.id), opacity: wanted.length > 1 ? .7 : 1, line: {color: colour, width: wanted.length > 1 ? 1.3 : 2}, marker: {color: colour, symbol: looks.get(row.id).marker, size: 7},
      hovertext: points.map(([step, value]) => `<b>${markup(row.label)}</b>, ${markup(which, 30)}<br>${along} ${step}: ${general(value, 4)}`)})));
  }
  const each = [...seeds].sort((a, b) => a - b).map(seed => [seed, plain(seed, 30)]);
  fill($("curve-seed"), [["", "mean"], ["all", "all"], ...each], state.seed);
  const values = lines.flatMap(line => line.y), wide = values.length && Math.min(...values) > 0 && Math.max(...values) / Math.min(...values) > 100;
  plot("curve", lines, axis(along === "k" ? "k, singular directions kept of every ΔW" : along), axis(markup(name), {type: wide ? "log" : "linear"}));
  say("curve", `Course of ${name} over ${along === "k" ? "k" : "training steps"}: ${plural(lines.length, "line")}.`);
  $("curves-note").textContent = lines.length ? `${state.seed === "" ? "Means over seeds" : "A line for each run"}, with at most 60 points. Choose the rows in the table.`
    : `No run of the rows drawn has a course of ${name} on this task.`;
}

for (const id of ["pareto", "used", "curve"]) {
  // plotly emits events only after it has drawn once
  requestAnimationFrame(function attach() {
    const drawn = $(id);
    if (!drawn.on) return requestAnimationFrame(attach);
    drawn.on("plotly_click", ({points}) => {
      const row = chosenTable.rows.find(row => row.id === points[0]?.customdata);
      if (row && !row.published) openRuns(row, id === "pareto" ? state.score : id === "curve" ? state.task : "");
    });
  });
}

for (const button of document.querySelectorAll("[data-save]")) {
  button.addEventListener("click", () => window.Plotly && Plotly.downloadImage($(button.dataset.save), {format: "svg", filename: `leaderboard-${button.dataset.save}`}));
}
