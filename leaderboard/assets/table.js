// The chosen table: its columns, how they sort, and the links from cells to runs.

const FIRST = 200;
const CHOSEN = "Chosen on the examples that it is scored on, so it is optimistic";
const NO_RANK = "no score is above chance, so this rank says nothing";
let allRows = false;

/** Columns in order; `order` gives the sort key, `up` whether higher is better (null: neither), `leads` what is bold. */
function columnsOf(table) {
  const cost = (key, name, show) => ({key, name, group: "cost", up: false, order: row => row[key], show: row => show(row[key])});
  const rank = (key, name) => ({key, name, group: "rank", up: null, order: row => row[key],
    show: row => row[key] === null ? NOTHING : key === "norm" ? general(row[key], 2) : fixed(row[key], 1)});
  const against = table.baseline ? `difference to ${table.baseline}` : "difference";
  const made = [
    {key: "rank", name: "rank", up: false, order: row => row.rank, show: row => row.rank ?? NOTHING},
    {key: "label", name: "method", order: row => row.label, words: true, show: row => nameCell(table, row)},
    ...shownColumns(table).flatMap(column => [
      {key: `task ${column.i}`, name: column.task, sub: [column.metric, column.data].filter(Boolean).join(" "),
        note: column.note, group: "scores", up: column.up, best: true, leads: row => row.cells[column.i]?.leads, order: row => row.cells[column.i]?.mean ?? null,
        show: row => scoreCell(row, column)},
      ...(table.best ? [{key: `best ${column.i}`, name: `best on ${column.split || "dev"}`, sub: column.task, note: CHOSEN, group: "scores", up: column.up,
        order: row => row.cells[column.i]?.best?.mean ?? null, show: row => score(row.cells[column.i]?.best ?? null, column.up)}] : []),
    ]),
  ];
  if (table.columns.length > 1) {
    made.push({key: "average", name: "average", sub: `${table.columns.length} tasks`, group: "scores", up: table.up, best: true, leads: row => row.average_leads,
      order: row => row.average?.mean ?? null, show: row => averageCell(row, table)});
    if (table.best) {
      made.push({key: "best_average", name: "average of the best", note: CHOSEN, group: "scores", up: table.up,
        order: row => row.best_average?.mean ?? null, show: row => score(row.best_average, table.up)});
    }
  }
  made.push(
    {key: "difference", name: against, sub: "95 % interval", group: "statistics", up: table.up, order: row => row.difference?.mean ?? null,
      show: row => difference(row.difference, table.up)},
    {key: "iqm", name: "IQM", sub: "interquartile mean", group: "statistics", up: table.up, best: true, order: row => row.iqm, show: row => figure(row.iqm, table.up)},
    {key: "average_rank", name: "average rank", group: "statistics", up: false, best: true, order: row => row.average_rank,
      show: row => row.average_rank === null ? NOTHING : fixed(row.average_rank, 2)},
    {key: "trainable", name: "trained", sub: "share", group: "cost", up: false, order: row => row.trainable, show: row => trained(row.trainable, row.share)},
    cost("stored_bytes", "stored", bytes), cost("train_s", "train time", duration), cost("peak_memory_bytes", "peak memory", bytes),
    {key: "needed", name: "rank needed", group: "rank", up: false, order: row => row.needed ?? (row.needed_above === null ? null : row.needed_above + 1),
      show: row => row.needed !== null ? general(row.needed, 3) : row.needed_above !== null ? `>${general(row.needed_above, 3)}` : NOTHING},
    rank("nominal", "nominal rank"), rank("effective", "effective rank"), rank("stable", "stable rank"), rank("norm", "‖ΔW‖₂"),
    {key: "lr", name: "learning rate", group: "training", up: null, order: row => num(row.lrs[0]), show: rates},
    {key: "trials", name: "trials", group: "training", up: null, order: row => row.trials, show: row => row.trials ?? NOTHING},
    {key: "states", name: "runs", group: "training", up: false, order: row => badRuns(row), show: row => stateCell(table, row)},
    {key: "group", name: "group", group: "training", up: null, words: true, order: row => row.groups[0] ?? null, show: groupCell},
  );
  return made.filter(column => !column.group || !state.nocolumns.has(column.group));
}

function groupCell(row) {
  const [first, ...others] = row.groups;
  return first ? el("span", {title: row.groups.join(" ")}, first.slice(0, 6) + (others.length ? ` +${others.length}` : "")) : NOTHING;
}

const counts = row => Object.entries(row.states).filter(([, number]) => num(number) > 0);
const badRuns = row => counts(row).reduce((sum, [name, number]) => sum + (["done", "running"].includes(name) ? 0 : number), 0);

function stateCell(table, row) {
  const parts = counts(row).map(([name, number]) => {
    const bad = !["done", "running"].includes(name);
    return el("span", {class: bad ? "bad" : ""}, `${number} ${plain(name, 30)}`);
  });
  if (!parts.length) return NOTHING;
  const joined = parts.flatMap((part, i) => i ? [" · ", part] : [part]);
  return row.published ? NOTHING : runsButton(row, "", joined, `${row.label}: its runs`);
}

function runsButton(row, cell, content, name) {
  const focus = `${row.id} ${cell || "all"}`;
  return el("button", {type: "button", class: "link", "data-focus": focus, title: name, onclick: () => openRuns(row, cell)}, content);
}

function scoreCell(row, column) {
  const cell = row.cells[column.i];
  if (row.published) return cell ? score(cell, column.up) : NOTHING;
  if (!cell) return runsOf(row, column.i).length ? runsButton(row, column.cell, NOTHING, `${row.label}, ${column.task}: no score, its runs`) : NOTHING;
  const content = [score(cell, column.up), cell.n === null ? "" : el("span", {class: "n"}, ` n=${cell.n}`)];
  return runsButton(row, column.cell, content, `${row.label}, ${column.task}: its runs`);
}

function averageCell(row, table) {
  const [done, all] = row.complete;
  if (row.average) return score(row.average, table.up);
  return done < all ? `${done}/${all}` : NOTHING;
}

/** The name of a row, the box that draws it below, its cautions and links to its notes. */
function nameCell(table, row) {
  const found = notesOf(table).get(row) ?? [];
  const cautions = row.cautions.map(caution => el("span", {class: "caution", title: plain(caution.text)}, `⚠ ${plain(caution.code, 30) || "note"}`));
  const links = found.map(number => el("a", {href: `#note-${number}`, class: "to", "aria-label": `note ${number}`,
    onclick: event => { event.preventDefault(); $(`note-${number}`).focus(); }}, String(number)));
  if (row.published) return [el("span", {class: "label"}, row.label), el("span", {class: "tag"}, "published"), ...links];
  const box = el("input", {type: "checkbox", "data-focus": `draw ${row.id}`, "aria-label": `draw ${row.label} below`, title: "draw its ranks and learning curves below",
    onchange: () => { toggleDrawn(table, row); refresh(); }});
  box.checked = drawnRows(table).includes(row);
  return [box, runsButton(row, "", el("span", {class: "label"}, row.label), `${row.label}: its runs`), ...cautions, ...links];
}

/** Numbers of the notes below the table, by row. */
let noted = {table: null, numbers: new Map(), texts: []};

function notesOf(table) {
  if (noted.table === table) return noted.numbers;
  const numbers = new Map(), texts = [];
  for (const row of table.rows) {
    const own = [...row.cautions.map(caution => `⚠ ${plain(caution.text || caution.code, 1000)}`), ...row.notes];
    if (row.published) own.push([row.published.source, row.published.arxiv && `arXiv ${row.published.arxiv}`, row.published.note].filter(Boolean).join(", "));
    const mine = [...new Set(own.filter(Boolean))].map(text => {
      if (!texts.includes(text)) texts.push(text);
      return texts.indexOf(text) + 1;
    });
    if (mine.length) numbers.set(row, mine);
  }
  noted = {table, numbers, texts};
  return numbers;
}

function drawNotes(table, rows) {
  const numbers = notesOf(table), used = new Set(rows.flatMap(row => numbers.get(row) ?? []));
  const shownNotes = noted.texts.map((text, i) => [i + 1, text]).filter(([number]) => used.has(number));
  const names = number => rows.filter(row => (numbers.get(row) ?? []).includes(number)).map(row => row.label);
  const of = number => { const all = names(number); return all.length > 3 ? `${all.slice(0, 3).join(", ")} and ${all.length - 3} more` : all.join(", "); };
  const items = shownNotes.map(([number, text]) => el("li", {id: `note-${number}`, value: number, tabindex: "-1"}, el("b", {}, of(number)), ` ${text}`));
  const tasks = shownColumns(table).filter(column => column.note).map(column => el("li", {}, el("b", {}, column.task), ` ${column.note}`));
  $("notes").replaceChildren(...table.notes.map(note => el("p", {}, note)), ...(items.length ? [el("h3", {}, "Notes"), el("ol", {}, ...items)] : []),
    ...(tasks.length ? [el("h3", {}, "Tasks"), el("ul", {}, ...tasks)] : []));
}

/** Rows in their own order, or sorted by a column; rows without a value come last in both directions. */
function sorted(rows, column) {
  if (!column) return rows;
  const sign = (column.up ? -1 : 1) * (state.down ? -1 : 1);
  return rows.map(row => [column.order(row), row]).sort(([a], [b]) => {
    if (a === null || b === null) return (a === null) - (b === null);
    return sign * (column.words ? a.localeCompare(b, "en", {numeric: true}) : a - b);
  }).map(([, row]) => row);
}

function header(column) {
  const on = state.sort === column.key, falls = Boolean(column.up) !== state.down;
  const arrow = column.best && column.up !== null && column.up !== undefined ? (column.up ? " ↑" : " ↓") : "";
  const says = arrow && (column.up ? "higher is better" : "lower is better");
  const sort = () => {
    if (on && state.down) state.sort = "", state.down = false;
    else state.down = on, state.sort = column.key;
    refresh("table");
  };
  const button = el("button", {type: "button", "data-focus": `sort ${column.key}`, onclick: sort, title: [says, column.note].filter(Boolean).join(". ") || null},
    el("span", {}, column.name, arrow && el("span", {"aria-hidden": "true"}, arrow), says && el("span", {class: "unseen"}, `, ${says}`)),
    el("span", {class: "turn", "aria-hidden": "true"}, on ? (falls ? "▼" : "▲") : ""));
  const sub = column.sub && el("span", {class: "sub"}, column.sub);
  return el("th", {scope: "col", class: column.key === "label" ? "name" : "", "aria-sort": on ? (falls ? "descending" : "ascending") : "none"}, button, sub);
}

function line(row, columns) {
  return el("tr", {}, columns.map(column => {
    const content = column.show(row);
    if (column.key === "label") return el("th", {scope: "row", class: "name"}, el("div", {}, content));
    const pale = column.group === "rank" && row.learned_nothing && column.order(row) !== null;
    const shown = pale ? el("span", {class: "pale", title: NO_RANK}, content, el("span", {class: "unseen"}, ` (${NO_RANK})`)) : content;
    return el("td", {class: column.group === "scores" ? "score" : ""}, column.leads?.(row) ? el("strong", {}, shown) : shown);
  }));
}

function drawTable(table) {
  const columns = columnsOf(table), by = columns.find(column => column.key === state.sort);
  const rows = shownRows(table), own = sorted(rows.filter(row => !row.published), by), published = sorted(rows.filter(row => row.published), by);
  const shown = allRows ? own : own.slice(0, FIRST);
  const bodies = [el("tbody", {}, shown.map(row => line(row, columns)))];
  if (published.length) {
    const head = el("tr", {class: "divide"}, el("th", {colspan: columns.length, scope: "rowgroup"}, el("span", {}, "Published scores from papers, with other code and settings; without a rank")));
    bodies.push(el("tbody", {class: "published"}, head, published.map(row => line(row, columns))));
  }
  const caption = el("caption", {}, table.heading || "No table");
  if (!shown.length && !published.length) bodies[0].append(el("tr", {}, el("td", {colspan: columns.length, class: "none"}, table.rows.length ? "No row fits the filters." : "No scores yet.")));
  $("table").replaceChildren(caption, el("thead", {}, el("tr", {}, columns.map(header))), ...bodies);
  const more = own.length - shown.length;
  $("more").hidden = !more;
  $("more").replaceChildren(more ? `The first ${FIRST} of ${own.length.toLocaleString("en")} rows. ` : "",
    more ? el("button", {type: "button", onclick: () => { allRows = true; refresh("table"); }}, "Show all") : "");
  drawNotes(table, [...shown, ...published]);
  return rows;
}
