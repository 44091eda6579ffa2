// What the explorers share: their look, elements, and how numbers are written.

export const LOOK = /* css */ `
.view { --ink:#1c2431; --soft:#596273; --line:#dfe3ea; --card:#ffffff; --page:#f7f8fa; --mark:#fff6e0; --markline:#e5c877;
  --alarm:#b42318; --one:#0072B2; --two:#D55E00; --third:#6f7784;
  color:var(--ink); background:var(--page); font:15px/1.45 system-ui, sans-serif; min-height:100vh; }
@media (prefers-color-scheme: dark) { .view { --ink:#e8ebf0; --soft:#a4adbb; --line:#343c49; --card:#1c222c; --page:#12161d;
  --mark:#2d2716; --markline:#6b5a24; --alarm:#ff9c8f; --one:#56B4E9; --two:#F08A3C; --third:#9aa3b0; } }
.view * { box-sizing:border-box; }
.view header { display:flex; flex-wrap:wrap; gap:.6rem 1rem; align-items:center; padding:.8rem 1.2rem; background:var(--card); border-bottom:1px solid var(--line); }
.view h1 { font-size:1.25rem; margin:0; }
.view h2 { font-size:.95rem; margin:0; }
.view h2.group { font-size:.72rem; letter-spacing:.06em; text-transform:uppercase; color:var(--soft); margin:1rem 0 .3rem; }
.view .promise { color:var(--soft); flex:1 1 12rem; }
.view button, .view select { font:inherit; color:var(--ink); background:var(--card); border:1px solid var(--line); border-radius:999px; padding:.3rem .75rem; min-height:2.1rem; cursor:pointer; }
.view button[aria-pressed=true] { background:var(--ink); color:var(--card); border-color:var(--ink); }
.view button:disabled, .view input:disabled, .view select:disabled { opacity:.5; cursor:not-allowed; }
.view .play { background:var(--ink); color:var(--card); min-width:6.2rem; }
.view :focus-visible { outline:3px solid #56B4E9; outline-offset:2px; }
.view .count { font-weight:700; font-size:1.35rem; font-variant-numeric:tabular-nums; min-width:9.5rem; }
.view .count small { font-weight:400; font-size:.8rem; color:var(--soft); }
.view .body { display:grid; grid-template-columns:16rem minmax(0,1fr); }
.view aside { padding:.4rem 1.2rem 2rem; background:var(--card); border-right:1px solid var(--line); }
.view aside summary { display:none; font-weight:600; padding:.4rem 0; }
.view main, .view .main { padding:1rem 1.2rem 2rem; display:grid; gap:1rem; align-content:start; max-width:170rem; }
.view .card { background:var(--card); border:1px solid var(--line); border-radius:12px; padding:.8rem 1rem; min-width:0; }
.view .cards { display:grid; grid-template-columns:repeat(auto-fit,minmax(min(100%,19rem),1fr)); gap:1rem; }
.view .chips { display:flex; flex-wrap:wrap; gap:.35rem; }
.view .chips button { border-radius:7px; padding:.2rem .55rem; font-size:.87rem; }
.view label.slider { display:grid; grid-template-columns:1fr auto; margin:.45rem 0; font-size:.9rem; }
.view label.slider b { font-variant-numeric:tabular-nums; }
.view input { accent-color:var(--ink); min-height:1.5rem; }
.view label.slider input { grid-column:1/-1; width:100%; height:1.5rem; }
.view .note { color:var(--soft); font-size:.82rem; margin:.2rem 0; }
.view .help { position:sticky; bottom:0; margin:.8rem -1.2rem 0; padding:.5rem 1.2rem; min-height:4.4em; background:var(--card); border-top:1px solid var(--line); color:var(--soft); font-size:.82rem; }
.view canvas { display:block; width:100%; }
.view figure { margin:0; min-width:0; }
.view figcaption { font-size:.85rem; text-align:center; color:var(--soft); }
.view figcaption b { color:var(--ink); display:block; }
.view .maps { display:grid; grid-template-columns:repeat(auto-fit,minmax(min(8rem,45%),1fr)); gap:1rem; }
.view .maps canvas { aspect-ratio:1; border-radius:6px; max-width:20rem; margin:0 auto .3rem; outline:1px solid var(--line); }
.view .head { display:flex; flex-wrap:wrap; gap:.2rem .8rem; align-items:baseline; margin-bottom:.4rem; }
.view .head span { color:var(--soft); font-size:.85rem; }
.view .ranks { display:flex; flex-wrap:wrap; gap:.35rem; margin-top:.6rem; align-items:center; }
.view .ranks button.gone { opacity:.45; border-style:dashed; }
.view .ranks button { min-width:2.6rem; border-radius:8px; touch-action:none; }
.view .ask { background:var(--mark); border-color:var(--markline); }
.view .ask p { margin:.4rem 0; max-width:60rem; }
.view table { border-collapse:collapse; font-size:.87rem; }
.view td, .view th { padding:.15rem .8rem .15rem 0; text-align:left; font-variant-numeric:tabular-nums; }
.view .scroll { overflow-x:auto; }
.view .hidden { position:absolute; width:1px; height:1px; overflow:hidden; clip-path:inset(50%); }
.view .off { display:none; }
.view .error { color:var(--alarm); margin:0; flex-basis:100%; font-size:.9rem; }
.view .error:empty { display:none; }
.playground, .playground .view { min-height:0; }
.playground .view .main, .playground .view header { padding:.6rem; }
.playground .view header { position:static; border-radius:12px; }
.view progress { accent-color:var(--ink); }
@media (max-width: 1000px) { .view .promise { display:none; } }
@media (max-width: 760px) {
  .view .body { grid-template-columns:minmax(0,1fr); }
  .view aside { border:0; padding:0 .8rem .4rem; }
  .view aside summary { display:list-item; }
  .view aside details[open] { max-height:45vh; overflow-y:auto; }
  .view header { position:sticky; top:0; z-index:1; padding:.4rem .8rem; gap:.35rem; }
  .view header button, .view header select { padding:.2rem .5rem; }
  .view header .play { min-width:5rem; }
  .view main, .view .main { padding:.8rem; }
}
`;

/** An element with attributes and children; on* are listeners. */
export function h(tag, attributes = {}, ...children) {
  const element = document.createElement(tag);
  for (const [name, value] of Object.entries(attributes)) {
    if (name.startsWith("on")) element.addEventListener(name.slice(2), value);
    else if (value === true) element.setAttribute(name, "");
    else if (value !== false && value !== null && value !== undefined) element.setAttribute(name, value);
  }
  element.append(...children.flat().filter((child) => child !== null && child !== undefined));
  return element;
}

/** Sets what an element says, or an attribute, only where it changes: at sixty frames a second that counts. */
export function tell(element, text) {
  if (element.textContent !== text) element.textContent = text;
}
export function mark(element, name, value) {
  if (element.getAttribute(name) !== String(value)) element.setAttribute(name, value);
}

/** A number as the reader sees it. */
export const shown = (value) => (typeof value === "number" ? String(+value.toPrecision(3)) : String(value));
export const percent = (share) =>
  Number.isFinite(share) ? `${(100 * share).toFixed(share < 0.0995 ? 1 : 0)} %` : "not a number";

/** Keys of a view, {key: action}, wherever the focus is in it, but where a control wants them itself. */
export function onKeys(view, actions) {
  document.addEventListener("keydown", (event) => {
    const { target, key } = event;
    const own = target === document.body || view.contains(target);
    if (!own || event.ctrlKey || event.metaKey || event.altKey || !actions[key]) return;
    if (["INPUT", "SELECT"].includes(target.tagName)) return;
    if (key === " " && ["BUTTON", "SUMMARY"].includes(target.tagName)) return;
    event.preventDefault();
    actions[key]();
  });
}
