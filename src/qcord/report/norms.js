// Centile chart of one cell at a time, drawn from the numbers in normCharts; without it the pictures stay.
(() => {
  const byId = id => document.getElementById(id);
  const box = { left: 64, right: 700, top: 52, bottom: 392 };
  const selects = { metric: byId("norm-metric"), region: byId("norm-region"), level: byId("norm-level") };
  const svg = byId("norm-svg"), read = byId("norm-read");
  const unique = list => [...new Set(list)];
  const make = (name, attributes, text) => {
    const element = document.createElementNS("http://www.w3.org/2000/svg", name);
    for (const key in attributes) element.setAttribute(key, attributes[key]);
    if (text !== undefined) element.textContent = text;
    return element;
  };
  const add = (name, attributes, text) => svg.appendChild(make(name, attributes, text));
  const fill = (select, pairs) => {
    const before = select.value;
    select.replaceChildren(...pairs.map(([value, text]) => new Option(text, value)));
    if (pairs.some(p => p[0] === before)) select.value = before;
  };
  const ticks = (low, high, most) => {
    const rough = (high - low) / most, power = 10 ** Math.floor(Math.log10(rough));
    const step = [1, 2, 5, 10].map(f => f * power).find(s => s >= rough);
    const found = [];
    for (let v = Math.ceil(low / step) * step; v <= high + 1e-9 * step; v += step) found.push(v);
    return { values: found, digits: Math.max(0, -Math.floor(Math.log10(step) + 1e-9)) };
  };
  const signed = v => (Math.abs(v) < 0.005 ? "" : v < 0 ? "−" : "+") + Math.abs(v).toFixed(2);

  function choices() {
    const of = (key, test) => unique(normCharts.filter(test).map(c => c[key]));
    fill(selects.metric, of("metric", () => true).map(m => [m, m]));
    const metric = c => c.metric === selects.metric.value;
    fill(selects.region, of("region", metric).map(r => [r, normCharts.find(c => c.region === r).name]));
    const region = c => metric(c) && c.region === selects.region.value;
    const kept = selects.level.value, found = normCharts.filter(region), farthest = found[0].level;
    const levels = [...found].sort((a, b) => a.order - b.order).map(c => c.level);
    fill(selects.level, unique(levels).map(l => [l, l.replace(":", " to ")]));
    if (!levels.includes(kept)) selects.level.value = farthest;
    return normCharts.find(c => region(c) && c.level === selects.level.value);
  }

  function words(point, unit) {
    const z = point.z === null ? "no z" : "z " + signed(point.z) + " (95 % interval " + signed(point.z_low) + " to " + signed(point.z_high) + "), centile " + point.standing;
    return point.label + ", age " + point.age.toFixed(1) + ": " + point.text + (unit ? " " + unit : "") + ", " + z;
  }

  function draw() {
    const chart = choices();
    svg.replaceChildren();
    const ages = chart.ages, first = ages[0], last = ages[ages.length - 1];
    const errors = chart.points.flatMap(p => [p.value - 1.96 * (p.se || 0), p.value + 1.96 * (p.se || 0)]);
    const all = chart.curves.flatMap(c => [...c.low, ...c.high]).concat(errors).filter(v => v !== null);
    let low = Math.min(...all), high = Math.max(...all);
    const margin = 0.04 * (high - low);
    low -= margin; high += margin;
    const x = a => box.left + (a - first) / (last - first) * (box.right - box.left);
    const y = v => box.bottom - (v - low) / (high - low) * (box.bottom - box.top);
    svg.setAttribute("aria-label", chart.title + ", " + chart.subtitle);

    const defs = add("defs", {});
    const hatch = make("pattern", { id: "norm-hatch", width: 7, height: 7, patternUnits: "userSpaceOnUse", patternTransform: "rotate(45)" });
    hatch.append(make("rect", { width: 7, height: 7, fill: "#f2efe6" }), make("line", { x1: 0, y1: 0, x2: 0, y2: 7, stroke: "#b9b09a" }));
    defs.append(hatch);
    const beyond = [[first, chart.known[0]], [chart.known[1], last]].filter(([a, b]) => b - a >= 0.5);
    beyond.forEach(([a, b]) => {
      add("rect", { x: x(a), y: box.top, width: x(b) - x(a), height: box.bottom - box.top, fill: "url(#norm-hatch)" });
    });
    const up = ticks(low, high, 6), along = ticks(first, last, 8);
    up.values.forEach(v => {
      add("line", { x1: box.left, x2: box.right, y1: y(v), y2: y(v), class: "grid" });
      add("text", { x: box.left - 7, y: y(v) + 4, "text-anchor": "end" }, v.toFixed(up.digits));
    });
    along.values.forEach(v => {
      add("line", { x1: x(v), x2: x(v), y1: box.bottom, y2: box.bottom + 5, class: "axis" });
      add("text", { x: x(v), y: box.bottom + 19, "text-anchor": "middle" }, v.toFixed(along.digits));
    });
    add("text", { x: (box.left + box.right) / 2, y: box.bottom + 38, "text-anchor": "middle" }, "age [years]");
    add("text", { x: 14, y: (box.top + box.bottom) / 2, "text-anchor": "middle", transform: "rotate(-90 14 " + (box.top + box.bottom) / 2 + ")" }, chart.metric + (chart.unit ? " [" + chart.unit + "]" : ""));
    add("text", { x: box.left, y: 18, class: "title" }, chart.title);
    add("text", { x: box.left, y: 36, class: "soft" }, chart.subtitle);
    beyond.forEach(([a, b]) => {
      const wide = x(b) - x(a) > 130, cx = (x(a) + x(b)) / 2, cy = box.bottom - 12;
      add("text", { x: cx, y: cy, class: "far", "text-anchor": wide ? "middle" : "start", transform: wide ? "" : "rotate(-90 " + cx + " " + cy + ")" }, "no data: extrapolated");
    });
    const path = values => values.map((v, i) => (i ? "L" : "M") + x(ages[i]).toFixed(1) + " " + y(v).toFixed(1)).join("");
    const back = values => values.map((v, i) => "L" + x(ages[i]).toFixed(1) + " " + y(v).toFixed(1)).reverse().join("");
    chart.curves.forEach(c => add("path", { d: path(c.high) + back(c.low) + "Z", class: "band" }));
    const names = [];
    chart.curves.forEach(c => add("path", { d: path(c.value), class: c.p === 0.5 ? "median" : "centile" }));
    [...chart.curves].sort((a, b) => (a.p !== 0.5) - (b.p !== 0.5) || Math.abs(b.p - 0.5) - Math.abs(a.p - 0.5)).forEach(c => {
      const at = y(c.value[c.value.length - 1]);
      if (names.every(n => Math.abs(n - at) > 12)) {
        names.push(at);
        add("text", { x: box.right + 5, y: at + 4, class: "soft" }, +(100 * c.p).toFixed(1) + " %");
      }
    });
    add("path", { d: "M" + box.left + " " + box.top + "V" + box.bottom + "H" + box.right, class: "axis" });
    const cursor = add("line", { y1: box.top, y2: box.bottom, class: "cursor", visibility: "hidden" });
    if (chart.points.length > 1) {
      add("path", { d: chart.points.map((p, i) => (i ? "L" : "M") + x(p.age) + " " + y(p.value)).join(""), class: "course" });
    }
    const current = chart.points[chart.points.length - 1];
    const rest = () => { read.textContent = words(current, chart.unit); };
    let lastLabel = -1e9;
    chart.points.forEach((p, i) => {
      const group = add("g", { tabindex: 0, role: "img", "aria-label": words(p, chart.unit), class: "point" });
      const cx = x(p.age), cy = y(p.value), isLast = p === current;
      if (p.se !== null) {
        const a = y(p.value - 1.96 * p.se), b = y(p.value + 1.96 * p.se);
        group.append(make("path", { d: `M${cx} ${a}V${b}M${cx - 4} ${a}h8M${cx - 4} ${b}h8`, class: "error" }));
      }
      const colour = p.style.match(/background: (#[0-9a-f]{6})/)[1];
      group.append(isLast ? make("circle", { cx, cy, r: 7, fill: colour }) : make("rect", { x: cx - 5, y: cy - 5, width: 10, height: 10, fill: colour }));
      const reach = p.se === null ? 8 : y(p.value - 1.96 * p.se) - cy, side = cx > box.right - 60 ? "end" : "middle";
      if (isLast) {
        const top = Math.max(box.top + 10, cy - reach - 7);
        group.append(make("text", { x: cx, y: top, "text-anchor": side, class: "label" }, p.label + (p.z === null ? "" : ", z " + signed(p.z))));
      } else if (i === 0 || Math.abs(cx - lastLabel) > 46) {
        lastLabel = cx;
        group.append(make("text", { x: cx, y: Math.min(box.bottom - 4, cy + reach + 15), "text-anchor": side, class: "label" }, p.label));
      }
      const show = () => { read.textContent = words(p, chart.unit); };
      group.addEventListener("mouseenter", show);
      group.addEventListener("focus", show);
      group.addEventListener("mouseleave", rest);
    });
    svg.onmousemove = event => {
      if (event.target.closest && event.target.closest(".point")) { cursor.setAttribute("visibility", "hidden"); return; }
      const frame = svg.getBoundingClientRect();
      const px = (event.clientX - frame.left) / frame.width * 760;
      if (px < box.left || px > box.right) { cursor.setAttribute("visibility", "hidden"); rest(); return; }
      const age = first + (px - box.left) / (box.right - box.left) * (last - first);
      let i = ages.findIndex(a => a >= age);
      i = Math.max(1, i);
      const t = (age - ages[i - 1]) / (ages[i] - ages[i - 1]);
      const at = p => { const v = chart.curves.find(c => c.p === p).value; return (v[i - 1] + t * (v[i] - v[i - 1])).toPrecision(3); };
      cursor.setAttribute("x1", px); cursor.setAttribute("x2", px); cursor.setAttribute("visibility", "visible");
      const far = age < chart.known[0] || age > chart.known[1] ? " (extrapolated)" : "";
      read.textContent = "Healthy people of " + age.toFixed(0) + " years" + far + ": median " + at(0.5) + ", 95 % from " + at(0.025) + " to " + at(0.975) + (chart.unit ? " " + chart.unit : "");
    };
    svg.onmouseleave = () => { cursor.setAttribute("visibility", "hidden"); rest(); };
    rest();
  }
  Object.values(selects).forEach(s => s.addEventListener("change", draw));
  byId("norm-chart").hidden = false;
  byId("norm-static").hidden = true;
  draw();
})();
