/** Forms made of what is asked for: a flat JSON schema, or the arguments of a call. */

import { html, nothing, type TemplateResult } from "lit";
import { isObject } from "../../protocol/frames.js";
import { isCode } from "../conversation/code.js";
import { keepInput } from "./keyboard-guard.js";
import { strings } from "./strings.js";
import { markedLine, visibleText } from "./visible-text.js";
import "../../style/fields.js";

type Fields = Readonly<Record<string, unknown>>;

export interface Field {
  readonly name: string;
  readonly title: string;
  readonly hint: string;
  readonly kind: "text" | "long" | "code" | "number" | "integer" | "boolean" | "choice" | "json";
  readonly required: boolean;
  readonly initial: unknown;
  /** Of a choice: the value, and how it is called. */
  readonly choices: readonly (readonly [string | number, string])[];
  /** HTML attributes that check the value: `min`, `maxlength`, `type`. */
  readonly rules: Fields;
}

/** The fields of a flat object schema; null when it is none (it nests, or is no object). */
export function fieldsOf(schema: Fields | null): readonly Field[] | null {
  const properties = schema?.["properties"];
  if (!schema || !isObject(properties) || !Object.keys(properties).length) return null;
  const required = Array.isArray(schema["required"]) ? schema["required"] : [];
  const fields = Object.entries(properties).map(([name, property]) =>
    isObject(property) ? fieldOf(name, property, required.includes(name)) : null,
  );
  return fields.every((field) => field !== null) ? fields : null;
}

const TEXT_TYPES: Readonly<Record<string, string>> = { email: "email", uri: "url", date: "date", "date-time": "datetime-local" };

function fieldOf(name: string, property: Fields, required: boolean): Field | null {
  const plain = optional(property);
  const { title, description, type } = plain;
  const initial = property["default"] ?? plain["default"] ?? undefined; // null says that there is none
  const field = {
    name,
    title: typeof title === "string" ? title : name,
    hint: typeof description === "string" ? description : "",
    required,
    initial,
    choices: [],
    rules: {},
  } as const;
  const choices = choicesOf(plain);
  if (choices) return { ...field, kind: "choice", choices };
  if (type === "boolean") return { ...field, kind: "boolean" };
  if (type === "number" || type === "integer") {
    return { ...field, kind: type, rules: { type: "number", min: plain["minimum"], max: plain["maximum"], step: type === "integer" ? 1 : "any" } };
  }
  if (type !== "string") return null;
  // No `pattern`: the browser would match a stranger's on the page's only thread, without a bound. The server checks it.
  const rules = { type: TEXT_TYPES[String(plain["format"])] ?? "text", minlength: plain["minLength"], maxlength: plain["maxLength"] };
  const isLong = typeof plain["maxLength"] === "number" && plain["maxLength"] > 300;
  return { ...field, kind: isLong ? "long" : "text", rules };
}

/** `anyOf: [X, null]` is how Python says that X may be left out. */
function optional(property: Fields): Fields {
  const others = Array.isArray(property["anyOf"]) ? property["anyOf"].filter(isObject).filter(({ type }) => type !== "null") : [];
  return others.length === 1 && others[0] ? { ...others[0], ...property, type: others[0]["type"] } : property;
}

function choicesOf({ enum: values, enumNames, oneOf }: Fields): Field["choices"] | null {
  const isValue = (value: unknown): value is string | number => typeof value === "string" || typeof value === "number";
  if (Array.isArray(values) && values.every(isValue)) {
    const names = Array.isArray(enumNames) ? enumNames : [];
    return values.map((value, index) => [value, String(names[index] ?? value)] as const);
  }
  if (!Array.isArray(oneOf) || !oneOf.every((one) => isObject(one) && isValue(one["const"]))) return null;
  return (oneOf as readonly Fields[]).map((one) => [one["const"] as string | number, String(one["title"] ?? one["const"])] as const);
}

/** The fields with which the arguments of a call are edited. */
export function argumentFields(args: Fields): readonly Field[] {
  return Object.entries(args).map(([name, initial]) => {
    const field = { name, title: name, hint: "", required: false, initial, choices: [], rules: {} } as const;
    if (typeof initial === "boolean") return { ...field, kind: "boolean" };
    if (typeof initial === "number") return { ...field, kind: "number", rules: { type: "number", step: "any" } };
    if (typeof initial === "string") return { ...field, kind: isCode(name) ? "code" : initial.length > 60 || initial.includes("\n") ? "long" : "text" };
    return { ...field, kind: "json" };
  });
}

/** One field for what a schema does not describe as a flat object: JSON, or plain text when there is no schema. */
export function freeField(schema: Fields | null): Field {
  const isText = schema === null || schema["type"] === "string";
  const kind = isText ? "long" : "json";
  return { name: "", title: strings.answer, hint: "", kind, required: true, initial: schema?.["default"], choices: [], rules: {} };
}

// --- drawing and reading ---------------------------------------------------------------------------------------------

export function formFields(fields: readonly Field[], place: string): TemplateResult {
  return html`${fields.map((field) => row(field, `${place}-${field.name || "answer"}`))}`;
}

function row(field: Field, id: string): TemplateResult {
  const hint = field.hint ? html`<span class="navi-hint" id=${`${id}-hint`}>${visibleText(field.hint)}</span>` : nothing;
  const label = html`<label for=${id}>${visibleText(field.title)}${field.required && field.name && field.kind !== "boolean" ? html` <span class="navi-required">${strings.required}</span>` : nothing}</label>`;
  if (field.kind === "boolean") return html`<div class="navi-field navi-field-check">${input(field, id)}${label}${hint}</div>`;
  return html`<div class="navi-field">${label}${input(field, id)}${hint}</div>`;
}

function input(field: Field, id: string): TemplateResult {
  const { name, kind, required, initial, rules } = field;
  const described = field.hint ? `${id}-hint` : nothing;
  const some = (rule: string): unknown => rules[rule] ?? nothing;
  switch (kind) {
    case "boolean":
      return html`<input id=${id} type="checkbox" data-field=${name} aria-describedby=${described} ?checked=${initial === true} />`;
    case "choice":
      return html`<select id=${id} data-field=${name} aria-describedby=${described} ?required=${required}>
        ${initial === undefined ? html`<option value="">${strings.choose}</option>` : nothing}
        ${field.choices.map(([value, text], index) => html`<option value=${index} ?selected=${value === initial}>${markedLine(text)}</option>`)}
      </select>`;
    case "long":
    case "code":
    case "json": {
      const text = kind === "json" ? (initial === undefined ? "" : JSON.stringify(initial, null, 2)) : String(initial ?? "");
      const rows = Math.min(16, Math.max(2, text.split("\n").length));
      return html`<textarea
        id=${id}
        class=${kind === "long" ? "" : "navi-mono"}
        data-field=${name}
        rows=${rows}
        spellcheck=${kind === "long" ? "true" : "false"}
        aria-describedby=${described}
        ?required=${required}
        .value=${text}
        @beforeinput=${keepInput}
      ></textarea>`;
    }
    default:
      return html`<input
        id=${id}
        data-field=${name}
        type=${some("type")}
        min=${some("min")}
        max=${some("max")}
        step=${some("step")}
        minlength=${some("minlength")}
        maxlength=${some("maxlength")}
        aria-describedby=${described}
        autocomplete="off"
        ?required=${required}
        .value=${initial === undefined ? "" : String(initial)}
      />`;
  }
}

type Control = HTMLInputElement | HTMLSelectElement | HTMLTextAreaElement;

/** What the form says, as an object; null (and the reason at the field) when it is not right. */
export function readForm(form: HTMLFormElement, fields: readonly Field[]): Record<string, unknown> | null {
  const controls = [...form.querySelectorAll<Control>("[data-field]")];
  const values: Record<string, unknown> = {};
  for (const field of fields) {
    const control = controls.find(({ dataset }) => dataset["field"] === field.name);
    if (!control) continue;
    control.setCustomValidity("");
    const value = read(control, field);
    if (value instanceof Error) {
      control.setCustomValidity(value.message);
      control.addEventListener("input", () => control.setCustomValidity(""), { once: true });
    } else if (value !== undefined) {
      values[field.name] = value;
    }
  }
  return form.reportValidity() ? values : null;
}

function read(control: Control, { kind, choices, initial }: Field): unknown {
  if (kind === "boolean") return (control as HTMLInputElement).checked;
  const text = control.value;
  // An empty text that had been one was meant to be empty; what never was anything is left out.
  if (text.trim() === "" && kind !== "code") return typeof initial === "string" && kind !== "choice" ? text : undefined;
  switch (kind) {
    case "choice":
      return choices[Number(text)]?.[0];
    case "number":
    case "integer":
      return Number(text);
    case "json":
      try {
        return JSON.parse(text) as unknown;
      } catch {
        return new Error(strings.badJson);
      }
    default:
      return text;
  }
}
