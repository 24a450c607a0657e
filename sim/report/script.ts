/**
 * The page's script: draws the timeline on a canvas and lets it be moved, zoomed and read, with a pointer or the keyboard.
 * Plain JavaScript in a text, because it runs in a browser and is checked there.
 */
export const script = String.raw`
'use strict';
const data = JSON.parse(document.getElementById('data').textContent);
const canvas = document.getElementById('timeline');
const hint = document.getElementById('hint');
const said = document.getElementById('said');
const g = canvas.getContext('2d');
// A canvas can only be so tall: very many machines get thinner rows.
const wanted = data.nodes.reduce((sum, node) => sum + 19 + 7 * Math.max(1, node.lanes), 0);
const scale = Math.min(1, 15000 / wanted);
const gutter = 172, axisHeight = 26, faultHeight = 22, laneHeight = 7 * scale, rowGap = 10 * scale, buildHeight = 6 * scale;
let width = 0, height = 0, from = 0, to = data.endMs;
let row = 0, picked = -1, dragged = null;

let top_ = axisHeight + faultHeight;
const rows = data.nodes.map((node, index) => {
  const lanes = Math.max(1, node.lanes);
  const one = { node, index, y: top_, lanes, height: buildHeight + 3 + lanes * laneHeight, spans: [] };
  top_ += one.height + rowGap;
  return one;
});
height = top_ + 4;
data.spans.forEach((span, index) => rows[span[0]].spans.push(index));
for (const one of rows) one.spans.sort((a, b) => data.spans[a][2] - data.spans[b][2]);

function color(name) { return getComputedStyle(document.documentElement).getPropertyValue('--' + name).trim(); }
function x(ms) { return gutter + ((ms - from) / (to - from)) * (width - gutter); }
function timeAt(px) { return from + ((px - gutter) / (width - gutter)) * (to - from); }
function time(ms) {
  const s = ms / 1000;
  if (Math.abs(s) < 60) return (Math.round(s * 10) / 10) + ' s';
  const m = Math.floor(s / 60), rest = Math.round((s - m * 60) * 10) / 10;
  return m + ' min' + (rest > 0 ? ' ' + rest + ' s' : '');
}
function clock(ms) {
  const s = ms / 1000, m = Math.floor(s / 60), h = Math.floor(m / 60), rest = s - m * 60;
  const seconds = (rest < 10 ? '0' : '') + (to - from < 8000 ? rest.toFixed(1) : Math.round(rest));
  return h > 0 ? h + ':' + (m % 60 < 10 ? '0' : '') + (m % 60) + ':' + seconds : m + ':' + seconds;
}
const steps = [100, 200, 500, 1000, 2000, 5000, 10000, 15000, 30000, 60000, 120000, 300000, 600000, 1200000, 3600000];

function draw() {
  const ratio = window.devicePixelRatio || 1;
  width = canvas.clientWidth;
  canvas.style.height = height + 'px';
  canvas.width = Math.round(width * ratio);
  canvas.height = Math.round(height * ratio);
  g.setTransform(ratio, 0, 0, ratio, 0, 0);
  const c = {};
  for (const name of ['paper', 'raised', 'ink', 'soft', 'line', 'own', 'guest', 'broken', 'build', 'off', 'asleep', 'owner', 'fault', 'faultshade', 'focus']) c[name] = color(name);
  g.fillStyle = c.paper; g.fillRect(0, 0, width, height);
  g.font = '12px system-ui, sans-serif'; g.textBaseline = 'middle';
  g.save();
  g.beginPath(); g.rect(gutter, 0, width - gutter, height); g.clip();
  // Faults, as shades over everybody.
  for (const fault of data.faults) {
    const a = x(fault.atMs), b = x(fault.atMs + fault.forMs);
    const hit = fault.nodes.length > 0 ? fault.nodes.map((n) => rows[n]) : rows;
    g.fillStyle = c.faultshade;
    for (const one of hit) g.fillRect(a, one.y - 3, Math.max(2, b - a), one.height + 6);
  }
  const step = steps.find((s) => (s / (to - from)) * (width - gutter) > 70) || 3600000;
  g.strokeStyle = c.line; g.fillStyle = c.soft; g.lineWidth = 1; g.textAlign = 'center';
  for (let t = Math.ceil(from / step) * step; t <= to; t += step) {
    g.beginPath(); g.moveTo(x(t), axisHeight - 6); g.lineTo(x(t), height); g.stroke();
    g.fillText(clock(t), Math.min(Math.max(x(t), gutter + 16), width - 20), axisHeight / 2 - 1);
  }
  // Who was there.
  for (const [n, kind, a, b] of data.presence) {
    const one = rows[n];
    g.fillStyle = kind === 'down' ? c.off : kind === 'asleep' ? c.asleep : c.owner;
    g.globalAlpha = kind === 'down' ? .55 : .6;
    g.fillRect(x(a), one.y + buildHeight + 1, Math.max(1, x(b) - x(a)), one.height - buildHeight);
    g.globalAlpha = 1;
  }
  for (const build of data.builds) {
    const one = rows[build.node];
    g.fillStyle = c.build;
    const a = x(build.atMs), b = x(build.atMs + build.forMs);
    g.fillRect(a, one.y, Math.max(2, b - a), 3);
    g.fillRect(a, one.y, 2, buildHeight); g.fillRect(b - 2, one.y, 2, buildHeight);
  }
  data.spans.forEach((span, index) => {
    const [n, lane, a, b, , guest, end] = span;
    if (b < from || a > to) return;
    const one = rows[n];
    const left = x(a), wide = Math.max(1, x(b) - left - (x(b) - left > 3 ? 1 : 0));
    const y = one.y + buildHeight + 2 + lane * laneHeight;
    g.fillStyle = end !== 0 ? c.broken : guest ? c.guest : c.own;
    if (end !== 0) { g.fillRect(left, y + laneHeight * .3, wide, laneHeight * .3); g.fillRect(left + wide - 2, y, 2, laneHeight * .85); }
    else g.fillRect(left, y, wide, laneHeight * .85);
    if (index === picked) { g.strokeStyle = c.focus; g.lineWidth = 2; g.strokeRect(left - 2, y - 2, wide + 4, laneHeight + 3); }
  });
  // Faults again, numbered, above.
  let lastX = -99, lift = 0;
  data.faults.forEach((fault, index) => {
    const a = x(fault.atMs);
    g.strokeStyle = c.fault; g.lineWidth = 1.5;
    g.setLineDash([4, 3]); g.beginPath(); g.moveTo(a, axisHeight + faultHeight - 6); g.lineTo(a, height); g.stroke(); g.setLineDash([]);
    lift = a - lastX < 16 ? lift + 1 : 0; lastX = a;
    const at = a + lift * 17;
    g.fillStyle = c.fault; g.beginPath(); g.arc(at, axisHeight + 8, 8, 0, 7); g.fill();
    g.fillStyle = c.paper; g.font = 'bold 11px system-ui, sans-serif'; g.textAlign = 'center'; g.fillText(String(index + 1), at, axisHeight + 8.5);
    g.font = '12px system-ui, sans-serif';
  });
  g.restore();
  // Names.
  g.textAlign = 'left';
  rows.forEach((one, index) => {
    g.fillStyle = index === row && document.activeElement === canvas ? c.focus : c.ink;
    g.fillText(fit(one.node.name, gutter - 14), 8, one.y + Math.min(one.height / 2, 12));
    if (one.height >= 34) { g.fillStyle = c.soft; g.font = '11px system-ui, sans-serif'; g.fillText(fit(one.node.what, gutter - 14), 8, one.y + 26); g.font = '12px system-ui, sans-serif'; }
    g.strokeStyle = c.line; g.lineWidth = 1;
    g.beginPath(); g.moveTo(0, one.y + one.height + rowGap / 2); g.lineTo(width, one.y + one.height + rowGap / 2); g.stroke();
  });
}

function fit(text, room) {
  if (g.measureText(text).width <= room) return text;
  while (text.length > 1 && g.measureText(text + '…').width > room) text = text.slice(0, -1);
  return text + '…';
}

let waiting = false;
function redraw() { if (!waiting) { waiting = true; requestAnimationFrame(() => { waiting = false; draw(); }); } }

function view(a, b) {
  const least = 200, span = Math.min(Math.max(b - a, least), data.endMs);
  const middle = (a + b) / 2;
  from = Math.max(0, Math.min(middle - span / 2, data.endMs - span));
  to = from + span;
  redraw();
}
function zoom(factor, at) {
  const middle = at === undefined ? (from + to) / 2 : at;
  const span = Math.min(Math.max((to - from) * factor, 200), data.endMs);
  const share = (middle - from) / (to - from);
  let a = middle - share * span;
  a = Math.max(0, Math.min(a, data.endMs - span));
  from = a; to = a + span; redraw();
}
function pan(share) { const by = (to - from) * share; const a = Math.max(0, Math.min(from + by, data.endMs - (to - from))); to = a + (to - from); from = a; redraw(); }

const ends = ['ran to its end', 'failed', 'was killed and given back', 'was lost with its machine', 'was still running at the end'];
function tell(index) {
  const [n, lane, a, b, name, guest, end, client] = data.spans[index];
  return data.names[name] + '\n' + data.nodes[n].name + (guest ? ', for ' + (data.nodes[client] || {}).name : ', for its own build') + '\n' +
    'from ' + time(a) + ' to ' + time(b) + ' (' + time(b - a) + '): ' + ends[end];
}
function say(text) { said.textContent = text.replaceAll('\n', ' · '); }

function show(index) {
  picked = index;
  const [, , a, b] = data.spans[index];
  if (a < from || b > to) { const span = to - from; view((a + b) / 2 - span / 2, (a + b) / 2 + span / 2); }
  say(tell(index)); redraw();
}
function move(by) {
  const spans = rows[row].spans;
  if (spans.length === 0) { say(rows[row].node.name + ' ran nothing.'); return; }
  let at = spans.indexOf(picked);
  if (at < 0) { at = spans.findIndex((s) => data.spans[s][3] >= from); if (at < 0) at = spans.length - 1; }
  else at = Math.max(0, Math.min(spans.length - 1, at + by));
  show(spans[at]);
}
function tellRow() {
  const one = rows[row];
  say(one.node.name + ' · ' + one.node.what + ' · ran ' + one.spans.length + ' actions, ' + one.spans.filter((s) => data.spans[s][5]).length + ' of them for others');
  redraw();
}
function goToFault(index) {
  const fault = data.faults[index];
  const room = Math.max(fault.forMs, 10000);
  view(fault.atMs - room * .4, fault.atMs + room * 1.6);
  say('Fault ' + (index + 1) + ': ' + fault.what + ' at ' + time(fault.atMs) + ' for ' + fault.span + ' · ' + fault.after);
}

canvas.addEventListener('keydown', (event) => {
  const keys = {
    ArrowLeft: () => pan(-.2), ArrowRight: () => pan(.2), '+': () => zoom(.6), '=': () => zoom(.6), '-': () => zoom(1 / .6),
    '0': () => view(0, data.endMs), Home: () => view(0, to - from), End: () => view(data.endMs - (to - from), data.endMs),
    ArrowUp: () => { row = Math.max(0, row - 1); picked = -1; tellRow(); }, ArrowDown: () => { row = Math.min(rows.length - 1, row + 1); picked = -1; tellRow(); },
    n: () => move(1), p: () => move(-1),
  };
  const act = event.ctrlKey || event.metaKey || event.altKey ? undefined : keys[event.key];
  if (act) { act(); event.preventDefault(); }
});
canvas.addEventListener('focus', tellRow);
canvas.addEventListener('blur', redraw);
canvas.addEventListener('wheel', (event) => {
  if (!event.ctrlKey && !event.metaKey) return;
  event.preventDefault();
  zoom(event.deltaY > 0 ? 1.2 : 1 / 1.2, timeAt(event.offsetX));
}, { passive: false });
canvas.addEventListener('pointerdown', (event) => { dragged = { x: event.offsetX, from, to }; canvas.setPointerCapture(event.pointerId); });
canvas.addEventListener('pointerup', (event) => {
  const still = dragged && Math.abs(event.offsetX - dragged.x) < 3;
  dragged = null;
  const index = at(event.offsetX, event.offsetY);
  if (still && index >= 0) { row = data.spans[index][0]; show(index); }
});
canvas.addEventListener('pointermove', (event) => {
  if (dragged) {
    const by = ((dragged.x - event.offsetX) / (width - gutter)) * (dragged.to - dragged.from);
    const a = Math.max(0, Math.min(dragged.from + by, data.endMs - (dragged.to - dragged.from)));
    to = a + (dragged.to - dragged.from); from = a; redraw();
    return;
  }
  const index = at(event.offsetX, event.offsetY);
  hint.style.display = index < 0 ? 'none' : 'block';
  if (index < 0) return;
  hint.textContent = tell(index);
  hint.style.left = Math.min(event.offsetX + 12, Math.max(0, width - 340)) + 'px';
  hint.style.top = event.offsetY + 16 + 'px';
});
canvas.addEventListener('pointerleave', () => { hint.style.display = 'none'; });
function at(px, py) {
  const one = rows.find((r) => py >= r.y && py <= r.y + r.height);
  if (!one || px < gutter) return -1;
  const lane = Math.floor((py - one.y - buildHeight - 2) / laneHeight), t = timeAt(px), slack = ((to - from) / (width - gutter)) * 2;
  const found = one.spans.find((s) => data.spans[s][1] === lane && t >= data.spans[s][2] - slack && t <= data.spans[s][3] + slack);
  return found === undefined ? -1 : found;
}
document.getElementById('in').onclick = () => zoom(.6);
document.getElementById('out').onclick = () => zoom(1 / .6);
document.getElementById('all').onclick = () => view(0, data.endMs);
document.getElementById('left').onclick = () => pan(-.3);
document.getElementById('right').onclick = () => pan(.3);
for (const button of document.querySelectorAll('button[data-fault]')) {
  button.onclick = () => { goToFault(Number(button.dataset.fault)); canvas.scrollIntoView({ block: 'center' }); };
}
new ResizeObserver(redraw).observe(canvas.parentElement);
matchMedia('(prefers-color-scheme: dark)').addEventListener('change', redraw);
draw();
`;
