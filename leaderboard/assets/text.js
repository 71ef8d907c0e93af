"use strict";
// Text and numbers, formatted as in leaderboard/render/cells.py. Text from records is never markup: `el` adds it to the
// document as text nodes, and `markup` escapes it for plotly.

const NOTHING = "–", DECIMALS = 3, SMALL = 0.01;
const UNSEEN = /[\p{Cc}\p{Cf}\p{Cs}\p{Zl}\p{Zp}]/gu;

const num = value => typeof value === "number" && Number.isFinite(value) ? value : null;
const list = value => Array.isArray(value) ? value : [];
const object = value => value && typeof value === "object" && !Array.isArray(value) ? value : {};

/** One line without control and direction characters; a longer text is shortened in its middle. */
function plain(value, longest = 300) {
  const clean = String(value ?? "").replace(UNSEEN, " ");
  if (clean.length <= longest) return clean;
  const letters = [...clean], half = longest >> 1;
  return letters.length <= longest ? clean
    : letters.slice(0, half).join("") + "…" + letters.slice(letters.length - (longest - 1 - half)).join("");
}

/** Escaped text for plotly, which reads some HTML in all texts. */
function markup(value, longest = 80) {
  return plain(value, longest).replaceAll("&", "&amp;").replaceAll("<", "&lt;").replaceAll(">", "&gt;");
}

/** Create an element; strings among the children become text nodes. */
function el(tag, attributes = {}, ...children) {
  const made = document.createElement(tag);
  for (const [name, value] of Object.entries(attributes)) {
    if (name === "onclick" || name === "onchange") made.addEventListener(name.slice(2), value);
    else if (value === true) made.setAttribute(name, "");
    else if (value !== null && value !== undefined && value !== false) made.setAttribute(name, value);
  }
  made.append(...children.flat().filter(child => child !== null && child !== undefined && child !== ""));
  return made;
}

const $ = id => document.getElementById(id);

/** A short key that depends on the text alone: FNV-1a, 32 bits, in hexadecimal. */
function key(value) {
  let hash = 0x811c9dc5;
  for (const letter of String(value)) hash = Math.imul(hash ^ letter.codePointAt(0), 0x01000193);
  return (hash >>> 0).toString(16).padStart(8, "0");
}

/** Fixed decimals with halves rounded to even, as Python does, and no negative zero. */
function fixed(value, digits) {
  const size = Math.abs(value);
  let text = size.toFixed(digits);
  if ((size * 2 ** (digits + 1)) % 2 === 1) { // only then is it a half exactly
    const below = Math.floor(size * 10 ** digits);
    text = ((below + below % 2) / 10 ** digits).toFixed(digits);
  }
  return value < 0 && Number(text) !== 0 ? `-${text}` : text;
}

/** Significant digits as Python's `g`. */
function general(value, digits) {
  if (value === 0) return "0";
  const trim = text => text.includes(".") ? text.replace(/\.?0+$/, "") : text;
  const [mantissa, power] = value.toExponential(digits - 1).split("e"), e = Number(power);
  if (e < -4 || e >= digits) return `${trim(mantissa)}e${e < 0 ? "-" : "+"}${String(Math.abs(e)).padStart(2, "0")}`;
  return trim(fixed(value, digits - 1 - e));
}

/** A score with three decimals, or with three significant digits if it is a small error. */
function figure(value, up = true) {
  if (value === null) return NOTHING;
  return up === false && value !== 0 && Math.abs(value) < SMALL ? general(value, 3) : fixed(value, DECIMALS);
}

function score(stat, up = true) {
  if (!stat) return NOTHING;
  const small = up === false && Math.abs(stat.mean) < SMALL;
  return figure(stat.mean, up) + (stat.sd === null ? "" : ` ± ${small ? general(stat.sd, 2) : fixed(stat.sd, DECIMALS)}`);
}

function signed(value, up) {
  const text = figure(value, up);
  return value === null || text.startsWith("-") ? text : `+${text}`;
}

function difference(diff, up = true) {
  if (!diff) return NOTHING;
  const known = diff.low !== null && diff.high !== null;
  return signed(diff.mean, up) + (known ? ` [${signed(diff.low, up)}, ${signed(diff.high, up)}]` : "");
}

/** `22.7 M`, `0.07 M`, `1.2 k`, `770`. */
function count(value) {
  if (value === null) return NOTHING;
  const size = Math.abs(value);
  if (size >= 9_995) return `${fixed(value / 1e6, size >= 9.995e6 ? 1 : 2)} M`;
  return size >= 1_000 ? `${fixed(value / 1e3, 1)} k` : fixed(value, 0);
}

function percent(share) {
  const value = 100 * share, size = Math.abs(value);
  return `${size >= 99.95 ? fixed(value, 0) : size >= 0.1 ? fixed(value, 1) : general(value, 2)} %`;
}

const trained = (parameters, share) => parameters === null ? NOTHING : count(parameters) + (share === null ? "" : ` (${percent(share)})`);

function bytes(value) {
  if (value === null) return NOTHING;
  if (value < 1e4) return `${fixed(value / 1e3, 1)} kB`;
  return value < 1e10 ? `${fixed(value / 1e6, value < 1e6 ? 2 : value < 1e7 ? 1 : 0)} MB` : `${fixed(value / 1e9, 0)} GB`;
}

function duration(seconds) {
  if (seconds === null) return NOTHING;
  if (seconds < 120) return `${fixed(seconds, seconds >= 10 ? 0 : 1)} s`;
  return seconds < 7200 ? `${fixed(seconds / 60, 1)} min` : `${fixed(seconds / 3600, 1)} h`;
}

/** A learning rate as people type it, with all its digits: `1e-3`, `1.5e-4`, `0.5`. */
function rate(value) {
  const size = Math.abs(value);
  return value === 0 || (size >= 0.05 && size < 1e6) ? String(value) : value.toExponential();
}

function rates(row) {
  if (!row.lrs.length) return NOTHING;
  const span = [...new Set([row.lrs[0], row.lrs.at(-1)])].map(rate).join("…");
  return row.selected ? `${span} (selected${row.at_edge ? ", at the edge" : ""})` : span;
}

/** Text of a command or an error with invisible characters made visible, so that users copy what they see. */
function visible(value, keep = "") {
  return String(value ?? "").replace(UNSEEN, found => keep.includes(found) ? found : `\\u{${found.codePointAt(0).toString(16)}}`);
}

const plural = (number, word) => `${number.toLocaleString("en")} ${word}${number === 1 ? "" : "s"}`;
