"use strict";
// Tables that sort and filter, figures that follow the colours of the page, and the viewer of the gallery.
// All texts reach the page as texts, never as markup.

const AT_ONCE = 200; // rows of a table that are drawn before somebody asks for all

const make = (tag, attributes = {}, ...children) => {
  const element = document.createElement(tag);
  for (const [name, value] of Object.entries(attributes)) element.setAttribute(name, value);
  element.append(...children);
  return element;
};
const read = id => JSON.parse(document.getElementById(id).textContent);
const labelled = (text, control) => make("label", {}, text, control);

// "73.0 (71.4 to 74.7)" counts as 73; what is no number comes last, whichever way one sorts.
const number = text => parseFloat(text.replace("−", "-").replace(/,/g, ""));
const compare = (a, b, down, word) => {
  if (word) return (down ? -1 : 1) * a.localeCompare(b, undefined, {numeric: true});
  const [x, y] = [number(a), number(b)];
  if (isNaN(x) || isNaN(y)) return isNaN(x) - isNaN(y);
  return down ? y - x : x - y;
};

function grid(place) {
  const {columns, rows, marks} = read(`grid-${place.dataset.grid}`);
  const state = {exact: new Map(), words: [], sort: -1, down: false, all: false};
  const controls = make("div", {class: "controls"});
  const count = make("span", {class: "quiet", role: "status"});
  const more = make("button", {type: "button"}, "Show all rows");
  const body = make("tbody");
  const heads = columns.map((column, k) => {
    const button = make("button", {type: "button", title: column.name}, column.title);
    const head = make("th", {scope: "col", "aria-sort": "none"}, button);
    if (column.unit) head.append(" ", make("small", {}, column.unit));
    if (column.word) head.className = "word";
    button.addEventListener("click", () => {
      state.down = state.sort === k ? !state.down : !column.word && !column.lower;
      state.sort = k;
      heads.forEach((other, at) =>
        other.setAttribute("aria-sort", at !== k ? "none" : state.down ? "descending" : "ascending"));
      draw();
    });
    return head;
  });

  columns.forEach((column, k) => {
    if (!column.choose) return;
    const select = make("select", {"data-column": column.name}, make("option", {value: ""}, "all"));
    [...new Set(rows.map(row => row[k]))].forEach(value => select.append(make("option", {value: `=${value}`}, value)));
    select.addEventListener("change", () => {
      select.value ? state.exact.set(k, select.value.slice(1)) : state.exact.delete(k);
      draw();
    });
    controls.append(labelled(column.title, select));
  });
  const words = make("input", {type: "search", placeholder: "words"});
  words.addEventListener("input", () => {
    state.words = words.value.toLowerCase().split(/\s+/).filter(Boolean);
    draw();
  });
  more.addEventListener("click", () => { state.all = true; draw(); });
  controls.append(labelled("containing", words), count, more);

  function draw() {
    let found = rows.map((row, at) => [row, at]).filter(([row]) =>
      [...state.exact].every(([k, value]) => row[k] === value) &&
      (!state.words.length || (text => state.words.every(word => text.includes(word)))(row.join(" ").toLowerCase())));
    if (state.sort >= 0)
      found.sort(([a], [b]) => compare(a[state.sort], b[state.sort], state.down, columns[state.sort].word));
    const shown = state.all ? found : found.slice(0, AT_ONCE);
    count.textContent = `${found.length} of ${rows.length} rows` +
      (shown.length < found.length ? `, the first ${shown.length} shown` : "");
    more.hidden = shown.length === found.length;
    body.replaceChildren(...shown.map(([row, at]) => make("tr", {}, ...row.map((text, k) => {
      const cell = make(k ? "td" : "th", k ? {} : {scope: "row", title: text}, text);
      if (columns[k].word) cell.className = text.length > 40 && k ? "word long" : "word";
      const mark = marks[`${at},${k}`];
      if (mark) cell.classList.add(mark);
      return cell;
    }))));
  }
  draw();
  const name = place.closest("section, details").querySelector("h2").textContent;
  const scroll = make("div", {class: "scroll", tabindex: "0", role: "region", "aria-label": name},
    make("table", {}, make("thead", {}, make("tr", {}, ...heads)), body));
  place.append(controls, scroll);
}

const dark = matchMedia("(prefers-color-scheme: dark)");
function theme() {
  const colour = name => getComputedStyle(document.documentElement).getPropertyValue(name).trim();
  const [ink, quiet, line] = [colour("--ink"), colour("--quiet"), colour("--line")];
  return {
    background: null, font: "system-ui, sans-serif", view: {stroke: null}, text: {color: ink}, title: {color: ink},
    axis: {labelColor: ink, titleColor: quiet, gridColor: line, domainColor: line, tickColor: line},
    legend: {labelColor: ink, titleColor: quiet}, header: {labelColor: ink, titleColor: quiet},
  };
}
async function plot(place) {
  const spec = read(place.dataset.spec);
  const controls = place.parentElement.querySelector(".controls");
  controls.replaceChildren();
  spec.config = {...spec.config, ...theme()};
  if (innerWidth < 600) spec.config.axis.labelLimit = 110;
  await vegaEmbed(place, spec, {
    renderer: "svg", bind: controls, tooltip: {theme: dark.matches ? "dark" : "light"},
    actions: {export: true, source: false, compiled: false, editor: false},
  });
}

// The gallery's viewer steps through the masks of one instance.
const viewer = document.querySelector("dialog.viewer");
if (viewer) {
  let strip = [], at = 0;
  const [stage, caption] = [viewer.querySelector(".stage"), viewer.querySelector(".caption")];
  const show = step => {
    at = (at + step + strip.length) % strip.length;
    stage.replaceChildren(strip[at].querySelector("svg").cloneNode(true));
    caption.textContent = `${strip[at].textContent.trim()} (${at + 1} of ${strip.length})`;
  };
  document.querySelectorAll(".strip button").forEach(button => button.addEventListener("click", () => {
    strip = [...button.closest(".strip").querySelectorAll("button")];
    at = strip.indexOf(button);
    show(0);
    viewer.showModal();
  }));
  viewer.querySelector(".before").addEventListener("click", () => show(-1));
  viewer.querySelector(".after").addEventListener("click", () => show(1));
  viewer.addEventListener("keydown", event => {
    if (event.key === "ArrowLeft") show(-1);
    if (event.key === "ArrowRight") show(1);
  });
}

// A folded section is filled when it is opened; a link to it opens it.
const fill = section => {
  if (section.dataset.filled) return;
  section.dataset.filled = "yes";
  section.querySelectorAll(".grid").forEach(grid);
  section.querySelectorAll(".plot").forEach(plot);
};
const follow = () => {
  const target = location.hash && document.getElementById(decodeURIComponent(location.hash.slice(1)));
  if (target instanceof HTMLDetailsElement) target.open = true;
};
document.querySelectorAll("main > section").forEach(fill);
document.querySelectorAll("main > details").forEach(section =>
  section.addEventListener("toggle", () => section.open && fill(section)));
dark.addEventListener("change", () => document.querySelectorAll("[data-filled] .plot").forEach(plot));
addEventListener("hashchange", follow);
follow();
