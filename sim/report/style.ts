/** The page's style: one column, system fonts, colours that keep their contrast in light and in dark. */
export const style = `
:root {
  color-scheme: light dark;
  --paper: #ffffff; --raised: #f4f6f8; --ink: #16202b; --soft: #52606d; --line: #cfd7de;
  --own: #2f6fd0; --guest: #0b8a6c; --broken: #c62f3b; --build: #16202b;
  --off: #5b6672; --asleep: #b9c2ca; --owner: #f2d58b; --fault: #c62f3b; --faultshade: rgba(198, 47, 59, .12);
  --focus: #b14a00; --good: #0b7a5f; --link: #7a4fc0;
}
@media (prefers-color-scheme: dark) {
  :root {
    --paper: #12181f; --raised: #1b232c; --ink: #e8edf2; --soft: #a3b0bc; --line: #3a4653;
    --own: #6ba3f5; --guest: #3fc7a2; --broken: #ff6b74; --build: #e8edf2;
    --off: #8994a0; --asleep: #48535e; --owner: #6d5a20; --fault: #ff6b74; --faultshade: rgba(255, 107, 116, .16);
    --focus: #ffb45c; --good: #4fd1ab; --link: #b99af0;
  }
}
* { box-sizing: border-box; }
body { margin: 0 auto; padding: 1.5rem 1.25rem 4rem; max-width: 82rem; background: var(--paper); color: var(--ink);
  font: 16px/1.5 system-ui, sans-serif; }
h1 { margin: 0 0 .25rem; font-size: 1.75rem; line-height: 1.2; }
h2 { margin: 2.25rem 0 .5rem; font-size: 1.2rem; }
p { margin: .35rem 0; max-width: 46rem; }
.soft { color: var(--soft); }
.verdict { display: inline-block; margin: .75rem 0 .25rem; padding: .3rem .75rem; border-radius: .4rem; font-weight: 600;
  border: 2px solid var(--good); color: var(--good); }
.verdict.bad { border-color: var(--broken); color: var(--broken); }
.bars { display: grid; grid-template-columns: max-content 1fr; gap: .4rem .9rem; align-items: center; max-width: 54rem; }
.bars .bar { display: flex; align-items: center; gap: .6rem; white-space: nowrap; }
.bars .bar i { display: block; height: 1.3rem; min-width: 3px; border-radius: .2rem; background: var(--soft); }
.bars .bar.mesh i { background: var(--guest); }
.facts { display: flex; flex-wrap: wrap; gap: .75rem; margin: 1rem 0 0; padding: 0; list-style: none; }
.facts li { min-width: 9rem; padding: .55rem .85rem; border-radius: .4rem; background: var(--raised); }
.facts b { display: block; font-size: 1.25rem; font-variant-numeric: tabular-nums; }
.scroll { overflow-x: auto; }
table { border-collapse: collapse; font-variant-numeric: tabular-nums; }
th, td { padding: .3rem .9rem .3rem 0; text-align: left; vertical-align: top; border-bottom: 1px solid var(--line); }
th { color: var(--soft); font-weight: 600; }
td.number, th.number { text-align: right; white-space: nowrap; }
.holds { color: var(--good); font-weight: 600; } .fails { color: var(--broken); font-weight: 600; }
.legend { display: flex; flex-wrap: wrap; gap: .3rem 1.2rem; margin: .5rem 0; padding: 0; list-style: none; }
.legend i { display: inline-block; width: 1.5rem; height: .8rem; margin-right: .4rem; border-radius: .15rem; vertical-align: -.05rem; }
.tools { display: flex; flex-wrap: wrap; gap: .5rem; align-items: center; margin: .5rem 0; }
button { padding: .25rem .7rem; border: 1px solid var(--line); border-radius: .35rem; background: var(--raised); color: var(--ink); font: inherit; cursor: pointer; }
:focus-visible { outline: 3px solid var(--focus); outline-offset: 2px; }
#chart { position: relative; border: 1px solid var(--line); border-radius: .35rem; }
canvas { display: block; width: 100%; touch-action: pan-y; cursor: grab; border-radius: .35rem; }
#said { min-height: 3.2em; margin: .5rem 0 0; max-width: none; }
#hint { position: absolute; z-index: 1; display: none; max-width: 22rem; padding: .4rem .6rem; border-radius: .35rem; pointer-events: none;
  background: var(--ink); color: var(--paper); font-size: .9rem; white-space: pre-line; }
kbd { padding: 0 .35rem; border: 1px solid var(--line); border-radius: .25rem; background: var(--raised); font: .9em ui-monospace, monospace; }
svg.flow { display: block; } svg.flow .up { fill: var(--link); } svg.flow .down { fill: var(--own); opacity: .75; } svg.flow line { stroke: var(--line); }
@media print { .tools, #said, #hint { display: none; } }
`;
