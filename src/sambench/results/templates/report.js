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

// Pictures: per instance a strip of the same part of the image, with the ground truth first and then each variant's mask,
// best first; and a viewer that steps through variants and instances.
const draw = (tag, attributes = {}, ...children) => {
  const element = document.createElementNS("http://www.w3.org/2000/svg", tag);
  for (const [name, value] of Object.entries(attributes)) element.setAttribute(name, value);
  element.append(...children);
  return element;
};
const TRUTH = "ground truth";

function drawing(picture, mask) {
  const parts = [draw("use", {href: `#${picture.id}`})];
  if (mask) parts.push(draw("path", {class: "mask", d: mask[2], "fill-rule": "evenodd"}));
  parts.push(draw("path", {class: "truth", d: picture.truth}));
  const [from, to] = picture.box;
  if (from) parts.push(draw("rect", {class: "prompt", x: from[0], y: from[1], width: to[0] - from[0], height: to[1] - from[1]}));
  picture.points.forEach(([cx, cy], k) =>
    parts.push(draw("circle", {class: picture.labels[k] ? "point" : "point outside", cx, cy, r: 5})));
  return draw("svg", {viewBox: `0 0 ${picture.width} ${picture.height}`, "aria-hidden": "true"}, ...parts);
}

function gallery(place) {
  const datasets = read(place.dataset.gallery);
  const state = {dataset: datasets[0], runtime: datasets[0].runtimes[0]};
  const named = (element, id) => { element.id = id; return element; };
  const controls = make("div", {class: "controls"});
  const list = make("div");
  const sources = draw("svg", {width: 0, height: 0, class: "sources", "aria-hidden": "true"});
  const choose = (title, names, choice, change) => {
    const select = make("select", {"data-choose": title}, ...names.map(name => make("option", {}, name)));
    select.value = choice;
    select.addEventListener("change", () => change(select.value));
    if (names.length > 1) controls.append(labelled(title, select));
  };
  // What a strip shows: no mask first, which is the ground truth alone.
  const steps = picture => [null, ...(picture.masks[state.runtime] ?? [])];
  const called = mask => mask ? mask[0] : TRUTH;

  function menus() {
    controls.replaceChildren();
    choose("data set", datasets.map(each => each.name), state.dataset.name, name => {
      state.dataset = datasets.find(each => each.name === name);
      if (!state.dataset.runtimes.includes(state.runtime)) state.runtime = state.dataset.runtimes[0];
      menus();
    });
    choose("runtime", state.dataset.runtimes, state.runtime, name => { state.runtime = name; show(); });
    show();
  }
  function show() {
    const {pictures, without} = state.dataset;
    sources.replaceChildren(...pictures.map((picture, k) => {
      picture.id = `picture-${k}`;
      return named(draw("image", {href: picture.data, width: picture.width, height: picture.height}), picture.id);
    }));
    list.replaceChildren();
    if (!pictures.length) list.append(make("p", {}, "No instance was picked: no variant has masks here."));
    if (without[state.runtime]) list.append(make("p", {class: "quiet"}, `Without masks: ${without[state.runtime]}.`));
    pictures.forEach((picture, k) => {
      const title = make("h3", {}, `${picture.category}: ${picture.reason}`);
      const about = `prompt ${picture.prompt}, image ${picture.image}, annotation ${picture.annotation}`;
      const missing = picture.without[state.runtime];
      const strip = make("div", {class: "strip"}, ...steps(picture).map((mask, at) => {
        const words = make("span", {}, called(mask));
        if (mask) words.append(" ", make("b", {}, mask[1].toFixed(1)));
        const button = make("button", {type: "button"}, drawing(picture, mask), words);
        button.addEventListener("click", () => view(k, at));
        return button;
      }));
      list.append(make("article", {}, title,
        make("p", {class: "quiet"}, missing ? `${about}; without a mask: ${missing}` : about), strip));
    });
  }

  const stage = make("div", {class: "stage"});
  const caption = make("p", {role: "status"});
  const press = (title, key, move) => {
    const button = make("button", {type: "button", title, "aria-label": title, "aria-keyshortcuts": key}, SIGNS[key]);
    button.addEventListener("click", move);
    return button;
  };
  const around = (at, count) => (at + count) % count;
  const across = step => view(state.picture, around(state.at + step, steps(state.dataset.pictures[state.picture]).length));
  const down = step => {
    const name = called(steps(state.dataset.pictures[state.picture])[state.at]);
    const next = around(state.picture + step, state.dataset.pictures.length);
    view(next, Math.max(0, steps(state.dataset.pictures[next]).findIndex(mask => called(mask) === name)));
  };
  const SIGNS = {ArrowLeft: "←", ArrowRight: "→", ArrowUp: "↑", ArrowDown: "↓", Escape: "close"};
  const moves = {
    ArrowLeft: ["previous variant", () => across(-1)], ArrowRight: ["next variant", () => across(1)],
    ArrowUp: ["previous instance", () => down(-1)], ArrowDown: ["next instance", () => down(1)],
    Escape: ["close", () => viewer.close()],
  };
  const buttons = make("div", {class: "controls"},
    ...Object.entries(moves).map(([key, [title, move]]) => press(title, key, move)));
  const viewer = make("dialog", {class: "viewer", "aria-label": "Masks of one instance"}, buttons, caption, stage);
  viewer.addEventListener("keydown", event => {
    if (event.key in moves && event.key !== "Escape") {
      event.preventDefault();
      moves[event.key][1]();
    }
  });
  function view(k, at) {
    [state.picture, state.at] = [k, at];
    const picture = state.dataset.pictures[k], all = steps(picture), mask = all[at];
    stage.replaceChildren(drawing(picture, mask));
    caption.replaceChildren(make("b", {}, called(mask)), mask ? ` IoU ${mask[1].toFixed(1)} %` : "",
      ` (${at} of ${all.length - 1}), ${picture.category}, prompt ${picture.prompt}, ${state.runtime}`);
    if (!viewer.open) viewer.showModal();
  }
  place.append(controls, sources, list, viewer);
  menus();
}

// A folded section is filled when it is opened; a link to it opens it.
const fill = section => {
  if (section.dataset.filled) return;
  section.dataset.filled = "yes";
  section.querySelectorAll(".grid").forEach(grid);
  section.querySelectorAll(".plot").forEach(plot);
  section.querySelectorAll(".gallery").forEach(gallery);
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
