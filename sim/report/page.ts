/** The report as one HTML page that needs nothing else: figures, tables, and a timeline that can be zoomed and read. */
import type { Expectation } from '../scenarios/expect.ts';
import { faultKinds } from '../scenarios/schema.ts';
import type { Scenario } from '../scenarios/load.ts';
import type { Figures, ScenarioResult, ScenarioRun } from '../scenarios/run.ts';
import { show, showSpan } from './format.ts';
import { script } from './script.ts';
import { style } from './style.ts';
import { boundText } from './text.ts';

const ends = ['done', 'failed', 'killed', 'lost', 'open'] as const;

export function htmlReport(scenario: Scenario, run: ScenarioRun, expectations: readonly Expectation[]): string {
  const { result } = run;
  const holds = expectations.every((one) => one.holds) && !result.violation;
  return `<!doctype html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<title>${escape(result.title)} – Potluck</title>
<style>${style}</style>
</head>
<body>
<main>
<p class="soft">A simulated build mesh: machines that share build results and idle cores without a server.</p>
<h1>${escape(result.title)}</h1>
${result.about ? `<p>${escape(result.about)}</p>` : ''}
<p class="verdict${holds ? '' : ' bad'}">${verdict(expectations, result)}</p>
${comparison(result)}
${facts(result)}
${timeline(run)}
${faultTable(result)}
${expectationTable(expectations)}
${buildTable(result)}
${linkTable(scenario, run)}
<h2>About this page</h2>
<p class="soft">${result.nodes} machines, ${show('ms', result.simulatedMs)} of virtual time, seed ${result.seed}, trace ${result.traceHash}. The machines decide
as in production; network, disks, power, owners and actions are simulated. “Alone” is every building machine with its own cache and nobody else. “Central cache” is a model of a
cache server that is never slow or down, and runs nothing.</p>
</main>
<script type="application/json" id="data">${JSON.stringify(pageData(scenario, run)).replaceAll('<', '\\u003c')}</script>
<script>${script}</script>
</body>
</html>
`;
}

function escape(text: string): string {
  return text.replaceAll('&', '&amp;').replaceAll('<', '&lt;').replaceAll('>', '&gt;').replaceAll('"', '&quot;');
}

function verdict(expectations: readonly Expectation[], result: ScenarioResult): string {
  if (result.violation) return `✗ An invariant of the mesh broke: ${escape(result.violation)}`;
  const broken = expectations.filter(({ holds }) => !holds).length;
  if (expectations.length === 0) return 'Nothing was expected of this scenario';
  return broken === 0
    ? `✓ All ${expectations.length} expectations hold`
    : `✗ ${broken} of ${expectations.length} expectations broken`;
}

function comparison({ mesh, alone, central, speedup, speedupOverCache }: ScenarioResult): string {
  const ways: readonly (readonly [string, string, Figures])[] = [
    ['With the mesh', 'mesh', mesh],
    ['Each machine alone', '', alone],
    ...(central ? [['With a central cache', '', central] as const] : []),
  ];
  const longest = Math.max(1, ...ways.map(([, , { buildTimeMs = 0 }]) => buildTimeMs));
  const bars = ways.map(([name, kind, { buildTimeMs }]) => {
    const percent = ((buildTimeMs ?? 0) / longest) * 75;
    return `<div>${name}</div><div class="bar ${kind}"><i style="width:${percent.toFixed(1)}%"></i>${show('ms', buildTimeMs)}</div>`;
  });
  return `<h2>How long a build takes</h2>
<div class="bars">${bars.join('\n')}</div>
<p class="soft">Mean of all builds. They take ${show('factor', speedup)} as long alone${central ? `, and ${show('factor', speedupOverCache)} as long with a central cache` : ''}.</p>`;
}

function facts({ mesh, recoveryMs, faults }: ScenarioResult): string {
  const items: readonly (readonly [string, string])[] = [
    [show('ms', mesh.makespanMs), 'from the first build’s start to the last one’s end'],
    [show('share', mesh.hitRate), 'of the actions needed no run of their own'],
    [show('share', mesh.elsewhere), 'of the runs were on another machine'],
    [show('count', mesh.lostActions), 'actions lost'],
    [show('count', mesh.duplicatedActions), 'runs for nothing: already done elsewhere'],
    ...(faults.length > 0 ? [[show('ms', recoveryMs), 'longest recovery after a fault'] as const] : []),
  ];
  return `<ul class="facts">${items.map(([value, what]) => `<li><b>${value}</b><span class="soft">${what}</span></li>`).join('')}</ul>`;
}

function timeline({ result, recording }: ScenarioRun): string {
  const seen = new Set(recording.presence.map(({ presence }) => presence));
  const swatch = (name: string, text: string): string => `<li><i style="background:var(--${name})"></i>${text}</li>`;
  return `<h2 id="timeline-title">What every machine did</h2>
<p>One row for each machine; each thin line in it is one of its slots, which runs one action at a time. Time goes from left to right, in minutes and seconds.</p>
<ul class="legend">
${swatch('own', 'action for its own build')}
${swatch('guest', 'action for another machine’s build')}
${swatch('broken', 'run that was broken off')}
<li><i style="background:none;border-top:3px solid var(--build);border-left:2px solid var(--build);border-right:2px solid var(--build);border-radius:0"></i>a build that this machine started</li>
${seen.has('owner') ? swatch('owner', 'owner at the machine') : ''}
${seen.has('asleep') ? swatch('asleep', 'asleep') : ''}
${seen.has('down') ? swatch('off', 'off') : ''}
${result.faults.length > 0 ? `<li><i style="background:var(--faultshade);border-left:2px dashed var(--fault)"></i>a fault, numbered as in the table below</li>` : ''}
</ul>
<div class="tools"><button id="in" type="button">Zoom in</button><button id="out" type="button">Zoom out</button><button id="left" type="button" aria-label="Earlier">←</button><button id="right" type="button" aria-label="Later">→</button><button id="all" type="button">Show all</button>
<span class="soft">Drag to move, <kbd>Ctrl</kbd> and wheel to zoom. Keys: <kbd>←</kbd> <kbd>→</kbd> move, <kbd>+</kbd> <kbd>−</kbd> zoom, <kbd>0</kbd> all, <kbd>↑</kbd> <kbd>↓</kbd> machine, <kbd>n</kbd> <kbd>p</kbd> next and previous action</span></div>
<div id="chart"><canvas id="timeline" tabindex="0" role="application" aria-labelledby="timeline-title" aria-describedby="said"></canvas><div id="hint"></div></div>
<p id="said" class="soft" aria-live="polite">Point at an action to read about it, or choose one with the keyboard.</p>
<noscript><p>The timeline needs JavaScript; all figures are in the tables.</p></noscript>`;
}

const explained: { readonly [K in (typeof faultKinds)[number]]: string } = {
  linkCut: 'nothing gets across',
  linkSlow: 'the link is slower',
  lidClosed: 'the machines sleep',
  pause: 'the machines stand still',
  crash: 'power is cut',
  leave: 'the machines are shut down',
  diskLost: 'power is cut, and the disk comes back blank',
  blobsLost: 'a third of the stored blobs is gone',
  diskFull: 'nothing can be written',
  liar: 'the machines lie and serve nothing half of the time',
  ownerBack: 'the owner sits down: guests must go',
};

function faultTable({ faults }: ScenarioResult): string {
  if (faults.length === 0) return '<h2>What went wrong</h2><p>Nothing: this scenario has no faults.</p>';
  const rows = faults.map(
    (
      fault,
      index,
    ) => `<tr><td class="number">${index + 1}</td><td>${escape(fault.what)}</td><td>${explained[fault.kind]}</td>
<td class="number">${show('ms', fault.atMs)}</td><td class="number">${showSpan(fault)}</td><td class="number">${fault.interrupted}</td>
<td>${recovered(fault)}</td><td><button type="button" data-fault="${index}" aria-label="Show fault ${index + 1} in the timeline">Show</button></td></tr>`,
  );
  return `<h2>What went wrong, and what came of it</h2>
<div class="scroll"><table><thead><tr><th class="number">#</th><th>fault</th><th>meaning</th><th class="number">at</th><th class="number">for</th><th class="number">actions interrupted</th><th>all of them answered</th><th></th></tr></thead>
<tbody>${rows.join('\n')}</tbody></table></div>
<p class="soft">An action counts as interrupted when it was just running for somebody else on a machine that was hit or cut off.</p>`;
}

function recovered({ interrupted, recoveryMs }: ScenarioResult['faults'][number]): string {
  if (interrupted === 0) return 'nothing to recover';
  return recoveryMs === undefined ? '<span class="fails">never</span>' : `after ${show('ms', recoveryMs)}`;
}

function expectationTable(expectations: readonly Expectation[]): string {
  if (expectations.length === 0) return '';
  const rows = expectations.map(
    (one) =>
      `<tr><td class="${one.holds ? 'holds' : 'fails'}">${one.holds ? '✓ holds' : '✗ broken'}</td><td>${escape(boundText(one))}</td><td class="number">${show(one.unit, one.measured)}</td></tr>`,
  );
  return `<h2>Expectations</h2>
<div class="scroll"><table><thead><tr><th></th><th>expected</th><th class="number">measured</th></tr></thead><tbody>${rows.join('\n')}</tbody></table></div>`;
}

function buildTable({ builds, central }: ScenarioResult): string {
  const rows = builds.map(
    (build) => `<tr><td>${escape(build.label)}</td><td class="number">${show('ms', build.atMs)}</td>
<td class="number">${build.abandoned ? 'machine went down' : show('ms', build.meshMs)}</td><td class="number">${show('ms', build.aloneMs)}</td>
${central ? `<td class="number">${show('ms', build.centralMs)}</td>` : ''}<td class="number">${build.actions}</td><td class="number">${show('share', build.actions === 0 ? 0 : build.hits / build.actions)}</td></tr>`,
  );
  return `<h2>Builds</h2>
<div class="scroll"><table><thead><tr><th>build</th><th class="number">began</th><th class="number">with the mesh</th><th class="number">alone</th>${central ? '<th class="number">central cache</th>' : ''}<th class="number">actions</th><th class="number">hit rate</th></tr></thead>
<tbody>${rows.join('\n')}</tbody></table></div>${dashes(builds, central !== undefined)}`;
}

function dashes(builds: ScenarioResult['builds'], central: boolean): string {
  const missing = builds.some(
    ({ meshMs, aloneMs, centralMs }) =>
      meshMs === undefined || aloneMs === undefined || (central && centralMs === undefined),
  );
  return missing
    ? '\n<p class="soft">Where there is a dash the build did not end: its machine went down in the middle, or time was over.</p>'
    : '';
}

function linkTable(scenario: Scenario, { result, topology }: ScenarioRun): string {
  if (result.links.length === 0) return '';
  const seconds = Math.max(1, Math.ceil(result.simulatedMs / 1_000));
  const skip = Math.trunc(scenario.warmUpMs / 1_000);
  const rows = result.links.map((link, index) => {
    const channels = topology.links[index] as (typeof topology.links)[number];
    const [up, down] = [channels.up.perSecond.slice(skip), channels.down.perSecond.slice(skip)];
    return `<tr><td>${escape(link.name)}</td><td class="number">${show('bytes', link.upBytes)}</td><td class="number">${show('bytes', link.downBytes)}</td>
${result.central ? `<td class="number">${show('bytes', link.centralBytes)}</td>` : ''}<td>${flowChart(up, down, seconds, `${link.name} over time`)}</td></tr>`;
  });
  const [first] = result.links;
  return `<h2>Links between sites</h2>
<div class="scroll"><table><thead><tr><th>link</th><th class="number">from ${result.links.length === 1 ? escape(first?.from ?? '') : 'the first site'}</th><th class="number">from ${result.links.length === 1 ? escape(first?.to ?? '') : 'the second'}</th>${result.central ? '<th class="number">with a central cache</th>' : ''}<th>over time (above: first direction, below: the other)</th></tr></thead>
<tbody>${rows.join('\n')}</tbody></table></div>`;
}

/** Bytes a second as two rows of bars, one up and one down from a line. */
function flowChart(up: readonly number[], down: readonly number[], seconds: number, name: string): string {
  const [columns, half] = [240, 22];
  const bins = (values: readonly number[]): number[] => {
    const sums = new Array<number>(columns).fill(0);
    for (let second = 0; second < seconds; second++) {
      const column = Math.min(columns - 1, Math.trunc((second * columns) / seconds));
      sums[column] = Math.max(sums[column] as number, values[second] ?? 0);
    }
    return sums;
  };
  const [ups, downs] = [bins(up), bins(down)];
  const most = Math.max(1, ...ups, ...downs);
  const bars = (values: readonly number[], kind: 'up' | 'down'): string =>
    values
      .map((value, column) => {
        const tall = (value / most) * half;
        if (tall < 0.2) return '';
        const y = kind === 'up' ? half - tall : half + 1;
        return `<rect class="${kind}" x="${column * 1.5}" y="${y.toFixed(1)}" width="1.5" height="${tall.toFixed(1)}"/>`;
      })
      .join('');
  return `<svg class="flow" role="img" aria-label="${escape(name)}" width="${columns * 1.5}" height="${half * 2 + 1}"><line x1="0" x2="${columns * 1.5}" y1="${half + 0.5}" y2="${half + 0.5}"/>${bars(ups, 'up')}${bars(downs, 'down')}</svg><span class="soft">most: ${show('bytes', most)} a second</span>`;
}

function pageData(scenario: Scenario, { recording, result, planned }: ScenarioRun): object {
  const names: string[] = [];
  const nameOf = new Map<string, number>();
  const shift = scenario.warmUpMs;
  const endMs = Math.max(1_000, result.simulatedMs);
  const lanes = new Map<number, number>();
  for (const { node, lane } of recording.spans) lanes.set(node, Math.max(lanes.get(node) ?? 0, lane + 1));
  const spans = recording.spans.map((span) => {
    const action = planned.actions.get(span.key);
    const text = action ? `${action.graph}: ${action.name}` : span.key;
    let name = nameOf.get(text);
    if (name === undefined) {
      nameOf.set(text, (name = names.length));
      names.push(text);
    }
    const client = Number(/^n(\d+)\//.exec(span.request)?.[1] ?? -1);
    const toMs = span.end === 'open' ? endMs : span.toMs - shift;
    return [span.node, span.lane, span.fromMs - shift, toMs, name, span.guest ? 1 : 0, ends.indexOf(span.end), client];
  });
  return {
    endMs,
    names,
    spans,
    nodes: scenario.nodes.map((node, index) => ({
      name: node.name,
      what: `${node.class}, ${node.slots} slots, ${scenario.sites[node.site]?.name}`,
      lanes: lanes.get(index) ?? 0,
    })),
    presence: recording.presence.flatMap(({ node, presence, fromMs, toMs }) => {
      const [from, to] = [Math.max(0, fromMs - shift), Math.min(endMs, toMs - shift)];
      return to > from ? [[node, presence, from, to]] : [];
    }),
    builds: result.builds.map((build, index) => ({
      node: planned.builds[index]?.node ?? 0,
      atMs: build.atMs,
      forMs: build.meshMs ?? endMs - build.atMs,
    })),
    faults: result.faults.map((fault, index) => ({
      what: fault.what,
      atMs: fault.atMs,
      forMs: fault.forMsMost,
      span: showSpan(fault),
      nodes: scenario.faults[index]?.nodes ?? [],
      after:
        fault.interrupted === 0
          ? 'no action was interrupted'
          : `${fault.interrupted} actions interrupted, ${fault.recoveryMs === undefined ? 'not all of them ever answered' : `all answered after ${show('ms', fault.recoveryMs)}`}`,
    })),
  };
}
