// Controls: sliders, chips and choices with their help. They are changed in place, so that a thumb can be dragged
// while what it changes is computed anew.

import { h, mark, shown, tell } from "./look.js";

const NO_HELP = "Point at a control, or go to it by keyboard: here it says what it does.";

/**
 * The controls of a view, in a box. A control is {group, name, label, kind: "slider", "chips" or "select", values (or
 * values(settings)), when(settings), help (or help(value))}; change(name, value) is told what the reader wants.
 */
export class Controls {
  constructor(box, controls, change) {
    Object.assign(this, { box, controls, change, made: new Map() });
    this.helpLine = h("p", { class: "help", "aria-hidden": "true" }, NO_HELP);
    for (const kind of ["pointerover", "focusin"]) box.addEventListener(kind, ({ target }) => this.help(target));
  }
  /** Shows what is of use with these settings; fixed(name): is it locked? extra: {name of a control: element after it}. */
  update(settings, fixed, extra = {}) {
    const wanted = [];
    let group = null;
    for (const control of this.controls) {
      const { name, when } = control;
      if (!(name in settings) || (when && !when(settings))) continue;
      if (control.group && control.group !== group) wanted.push(this.heading((group = control.group)));
      const made = this.get(control);
      made.update(settings, fixed(name));
      wanted.push(made.element);
      if (extra[name]) wanted.push(extra[name]);
    }
    wanted.push(this.helpLine);
    const { children } = this.box;
    if (wanted.length !== children.length || wanted.some((element, k) => element !== children[k])) {
      const held = document.activeElement?.dataset?.name;
      this.box.replaceChildren(...wanted);
      if (held) this.box.querySelector(`[data-name="${held}"]`)?.focus();
    }
  }
  heading(group) {
    const key = `group ${group}`;
    if (!this.made.has(key)) this.made.set(key, h("h2", { class: "group" }, group));
    return this.made.get(key);
  }
  get(control) {
    if (!this.made.has(control.name))
      this.made.set(
        control.name,
        make(control, (value) => this.change(control.name, value)),
      );
    return this.made.get(control.name);
  }
  help(target) {
    const of = target.closest("[data-help]");
    const control = of && this.controls.find(({ name }) => name === of.dataset.help);
    if (control) tell(this.helpLine, helpOf(control, target.dataset.value));
  }
}

const helpOf = ({ help }, value) => (typeof help === "function" ? help(value) : help);

/** {element, update(settings, fixed)} of a control. */
function make(control, change) {
  const { kind = "slider", name, label = name } = control;
  const about = h("span", { class: "hidden", id: `about-${name}` }, helpOf(control));
  const { element, update } = { slider, chips, select }[kind]({ ...control, label }, change, about);
  return { element, update };
}

function chips({ name, label, values }, change, about) {
  const buttons = values.map((value) =>
    h(
      "button",
      { type: "button", "data-name": `${name}-${value}`, "data-value": value, onclick: () => change(value) },
      value,
    ),
  );
  const title =
    label !== name ? h("span", { class: "note", style: "flex-basis:100%", "aria-hidden": "true" }, label) : null;
  const element = h(
    "div",
    {
      class: "chips",
      role: "group",
      "aria-label": label,
      "aria-describedby": about.id,
      "data-help": name,
      style: "margin:.4rem 0",
    },
    title,
    buttons,
    about,
  );
  const update = (settings, fixed) =>
    buttons.forEach((button, k) => {
      mark(button, "aria-pressed", values[k] === settings[name]);
      button.disabled = fixed;
    });
  return { element, update };
}

function select({ name, label, values }, change, about) {
  const input = h(
    "select",
    { "data-name": name, "aria-describedby": about.id, onchange: () => change(input.value) },
    values.map((each) => h("option", {}, each)),
  );
  const element = h("label", { class: "slider", "data-help": name }, label, input, about);
  const update = (settings, fixed) => {
    input.value = settings[name];
    input.disabled = fixed;
  };
  return { element, update };
}

function slider({ name, label, values }, change, about) {
  let all = [];
  const number = h("b");
  const input = h("input", {
    type: "range",
    min: 0,
    "data-name": name,
    "aria-label": label,
    "aria-describedby": about.id,
    oninput: () => change(all[input.value]),
  });
  const element = h("label", { class: "slider", "data-help": name }, label, number, input, about);
  const update = (settings, fixed) => {
    const value = settings[name];
    const given = typeof values === "function" ? values(settings) : values;
    all = given.includes(value) ? given : [...given, value].sort((x, y) => x - y);
    mark(input, "max", all.length - 1);
    input.value = all.indexOf(value);
    input.disabled = fixed;
    mark(input, "aria-valuetext", shown(value));
    tell(number, shown(value));
  };
  return { element, update };
}
