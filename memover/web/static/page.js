// The live part of the page. Text is only ever set as text (textContent): nothing from the store is read as markup.
"use strict";

(() => {
  const SVG = "http://www.w3.org/2000/svg";
  const SORTED_BY = {
    name: (f) => f.namespace, version: (f) => f.version, processes: (f) => f.processes, calls: (f) => f.calls_per_second,
    ratio: (f) => f.hit_ratio, near: (f) => f.near_hits_per_second, loads: (f) => f.loads_per_second, p50: (f) => f.load_p50,
    p95: (f) => f.load_p95, waits: (f) => f.waits_per_second, stale: (f) => f.stale_per_second, errors: (f) => f.errors_per_second,
    agreement: (f) => f.agreement,
  };

  // The token has done its work: the cookie stands for it, and the address may be seen by others.
  const here = new URL(location.href);
  if (here.searchParams.has("token")) {
    here.searchParams.delete("token");
    history.replaceState(null, "", here);
  }

  const element = (name, attributes) => {
    const made = document.createElementNS(SVG, name);
    for (const [key, value] of Object.entries(attributes)) made.setAttribute(key, value);
    return made;
  };

  const number = (value) => {
    if (!value) return "–";
    if (value >= 100) return Math.round(value).toLocaleString("en");
    return String(Number(value.toPrecision(3)));
  };

  const curve = (values, width, height, low, high) => {
    const step = values.length > 1 ? width / (values.length - 1) : 0;
    let path = "", pen = "M";
    values.forEach((value, at) => {
      if (value === null || value === undefined) { pen = "M"; return; }
      const y = height - ((value - low) / (high - low || 1)) * height;
      path += `${pen}${(at * step).toFixed(1)} ${y.toFixed(1)}`;
      pen = "L";
    });
    return path;
  };

  const spark = (cell, values) => {
    const svg = element("svg", { viewBox: "0 -1 120 26", preserveAspectRatio: "none", "aria-hidden": "true" });
    svg.append(element("path", { class: "curve", d: curve(values, 120, 24, 0, Math.max(...values, 0.001)) }));
    cell.replaceChildren(svg);
  };

  // -- charts ---------------------------------------------------------------------------------------------------------

  const charts = [...document.querySelectorAll(".chart")].map((box) => ({ box, field: box.dataset.field, of: box.dataset.history, points: [] }));

  const draw = (chart) => {
    const ratio = chart.field === "hit_ratio";
    const points = chart.points, values = points.map((point) => point[chart.field]);
    const known = values.filter((value) => value !== null && value !== undefined);
    const width = chart.box.clientWidth || 400, height = chart.box.clientHeight || 130, bottom = height - 16;
    const svg = element("svg", { viewBox: `0 0 ${width} ${height}`, role: "img" });
    const low = 0, high = ratio ? 1 : Math.max(...known, 1);
    const last = known.length ? known[known.length - 1] : null;
    const shown = (value) => (ratio ? `${Math.round(value * 100)} %` : number(value));
    const told = element("title", {});
    told.textContent = last === null ? "Nothing yet" : `Now ${shown(last)}, highest ${shown(Math.max(...known))}, lowest ${shown(Math.min(...known))}`;
    svg.append(told);
    for (const share of [0, 0.5, 1]) {
      const y = 12 + (bottom - 12) * (1 - share);
      svg.append(element("line", { class: "grid", x1: 0, x2: width, y1: y, y2: y }));
      const name = element("text", { x: 2, y: y - 3 });
      name.textContent = share === 0 ? "" : shown(high * share);
      svg.append(name);
    }
    if (points.length > 1) {
      const path = curve(values, width, bottom - 12, low, high);
      const group = element("g", { transform: "translate(0 12)" });
      const first = values.findIndex((value) => value !== null && value !== undefined);
      const start = ((width / (values.length - 1)) * Math.max(0, first)).toFixed(1);
      if (path && !path.slice(1).includes("M")) group.append(element("path", { class: "area", d: `${path}V${bottom - 12}H${start}Z` }));
      group.append(element("path", { class: "curve", d: path }));
      svg.append(group);
      const since = element("text", { x: 2, y: height - 3 });
      since.textContent = new Date(points[0].at * 1000).toLocaleTimeString();
      const until = element("text", { x: width - 2, y: height - 3, "text-anchor": "end" });
      until.textContent = new Date(points[points.length - 1].at * 1000).toLocaleTimeString();
      svg.append(since, until);
    } else {
      const wait = element("text", { x: width / 2, y: height / 2, "text-anchor": "middle" });
      wait.textContent = "the curve begins when the page has been open for a moment";
      svg.append(wait);
    }
    chart.box.replaceChildren(svg);
  };

  const load = async () => {
    for (const chart of charts) {
      try {
        const answer = await fetch(`/history?namespace=${encodeURIComponent(chart.of)}`);
        if (answer.ok) chart.points = await answer.json();
      } catch { /* the stream says when the server is gone */ }
      draw(chart);
    }
  };

  const point = (chart, news) => {
    if (!news.point) return null;
    if (!chart.of) return news.point;
    const mine = news.functions.filter((f) => f.namespace === chart.of);
    const calls = mine.reduce((sum, f) => sum + f.calls_per_second, 0);
    const hits = mine.reduce((sum, f) => sum + f.calls_per_second * (f.hit_ratio || 0), 0);
    return { at: news.point.at, calls, hit_ratio: calls ? hits / calls : null };
  };

  // -- the table of functions -------------------------------------------------------------------------------------------

  const table = document.getElementById("functions");
  const filter = document.getElementById("filter");
  // After the first, which is the function's name: what each column shows, and its head.
  const columns = table ? [...table.tHead.querySelectorAll("button")].slice(1).map((button) => [button.dataset.sort, button.textContent]) : [];
  let sort = "calls", down = true, latest = null;
  const rows = new Map();

  const row = (f) => {
    const tr = document.createElement("tr");
    const th = document.createElement("th");
    th.scope = "row";
    const link = document.createElement("a");
    link.href = f.path;
    link.textContent = f.namespace;
    th.append(link);
    tr.append(th);
    for (const [, label] of columns) {
      const td = document.createElement("td");
      td.className = "num";
      td.dataset.label = label;
      tr.append(td);
    }
    const last = document.createElement("td");
    last.className = "spark";
    last.dataset.label = "last minute";
    tr.append(last);
    return tr;
  };

  const fill = () => {
    if (!table || !latest) return;
    const wanted = filter ? filter.value.trim().toLowerCase() : "";
    const by = SORTED_BY[sort];
    const listed = latest.functions.filter((f) => f.namespace.toLowerCase().includes(wanted)).sort((a, b) => {
      const x = by(a), y = by(b);
      if (x === y) return a.namespace < b.namespace ? -1 : 1;
      if (x === null) return 1;
      if (y === null) return -1;
      return (x < y ? -1 : 1) * (down ? -1 : 1);
    });
    const present = new Set();
    const body = table.tBodies[0];
    listed.forEach((f, place) => {
      const name = `${f.version} ${f.namespace}`;
      present.add(name);
      let tr = rows.get(name);
      if (!tr) { tr = row(f); rows.set(name, tr); }
      columns.forEach(([column], at) => {
        const td = tr.children[at + 1];
        if (td.textContent !== f.cells[column]) td.textContent = f.cells[column];
        if (column === "ratio") td.className = `num ${f.grade}`;
        if (column === "errors" || column === "agreement") td.className = `num ${f.cells[column] !== "–" && (column === "errors" || f.agreement < 1) ? "bad" : ""}`;
      });
      spark(tr.lastElementChild, f.spark);
      if (body.children[place] !== tr) body.insertBefore(tr, body.children[place] || null);
    });
    for (const tr of [...body.children].slice(listed.length)) tr.remove();
    for (const name of [...rows.keys()]) if (!latest.functions.some((f) => `${f.version} ${f.namespace}` === name)) rows.delete(name);
    for (const th of table.tHead.rows[0].cells) {
      const button = th.querySelector("button");
      if (button && button.dataset.sort === sort) th.setAttribute("aria-sort", down ? "descending" : "ascending");
      else th.removeAttribute("aria-sort");
    }
  };

  if (table) {
    table.tBodies[0].replaceChildren();
    table.tHead.addEventListener("click", (event) => {
      const button = event.target.closest("button");
      if (!button) return;
      if (button.dataset.sort === sort) down = !down;
      else { sort = button.dataset.sort; down = sort !== "name"; }
      fill();
    });
    filter.addEventListener("input", fill);
  }

  // -- keys -------------------------------------------------------------------------------------------------------------

  document.addEventListener("keydown", (event) => {
    if (event.ctrlKey || event.metaKey || event.altKey) return;
    const typing = event.target instanceof HTMLInputElement;
    if (event.key === "/" && filter && !typing) { event.preventDefault(); filter.focus(); filter.select(); return; }
    if (event.key === "Escape" && typing && event.target === filter) { filter.value = ""; fill(); filter.blur(); return; }
    if (typing || (event.key !== "j" && event.key !== "k")) return;
    const links = [...document.querySelectorAll("tbody th a")];
    const at = links.indexOf(document.activeElement);
    const next = links[Math.max(0, Math.min(links.length - 1, at < 0 ? 0 : at + (event.key === "j" ? 1 : -1)))];
    if (next) next.focus();
  });

  for (const form of document.querySelectorAll("form.invalidate")) {
    form.addEventListener("submit", (event) => {
      const name = form.elements.namedItem("namespace").value;
      if (!confirm(`Invalidate every entry of ${name}, in every process?`)) event.preventDefault();
    });
  }

  // -- the stream -------------------------------------------------------------------------------------------------------

  const live = document.getElementById("live");
  const set = (id, value) => { const there = document.getElementById(id); if (there) there.textContent = value; };

  const show = (news) => {
    latest = news;
    live.textContent = "● live";
    live.className = "live on";
    const error = document.getElementById("error");
    if (error) { error.hidden = !news.error; error.textContent = news.error ? `The store does not answer: ${news.error}` : ""; }
    const empty = document.getElementById("empty");
    if (empty) empty.hidden = news.functions.length > 0;
    if (table) table.parentElement.hidden = news.functions.length === 0;
    if (news.point) {
      set("f-calls", number(news.point.calls));
      set("f-ratio", news.point.hit_ratio === null ? "–" : `${(news.point.hit_ratio * 100).toFixed(1)} %`);
      set("f-loads", number(news.point.loads));
    }
    set("f-processes", String(news.processes));
    for (const chart of charts) {
      const next = point(chart, news);
      if (!next || news.error) continue;
      const before = chart.points[chart.points.length - 1];
      if (!before || next.at > before.at) chart.points.push(next);
      if (chart.points.length > 1800) chart.points.shift();
      draw(chart);
    }
    fill();
  };

  load().then(() => {
    const stream = new EventSource("/events");
    stream.onmessage = (event) => show(JSON.parse(event.data));
    stream.onerror = () => { live.textContent = "● not connected"; live.className = "live off"; };
  });
  addEventListener("resize", () => charts.forEach(draw));
})();
