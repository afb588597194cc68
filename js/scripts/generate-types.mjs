// Turns navi_jupyter/schema.json (written from the Python classes) into src/protocol/generated.ts.
// `node scripts/generate-types.mjs --check` only says whether that file is up to date.
import { readFile, writeFile } from "node:fs/promises";
import { fileURLToPath } from "node:url";

const schemaFile = fileURLToPath(new URL("../../navi_jupyter/schema.json", import.meta.url));
const target = fileURLToPath(new URL("../src/protocol/generated.ts", import.meta.url));

const { $defs: definitions } = JSON.parse(await readFile(schemaFile, "utf8"));
const text = [
  "// Generated from navi_jupyter/schema.json by scripts/generate-types.mjs; do not edit.\n",
  ...Object.entries(definitions).map(([name, schema]) => declaration(name, schema)),
].join("\n");

if (process.argv.includes("--check")) {
  const present = await readFile(target, "utf8").catch(() => "");
  if (present !== text) {
    console.error("src/protocol/generated.ts is not that of navi_jupyter/schema.json: run `npm run types`");
    process.exitCode = 1;
  }
} else {
  await writeFile(target, text);
}

function declaration(name, schema) {
  const fields = schema.type === "object" && schema.properties;
  const body = fields ? `export interface ${name} ${shape(schema, "")}` : `export type ${name} = ${type(schema, "")};`;
  return `${comment(schema.description, "")}${body}\n`;
}

function shape(schema, indent) {
  const inner = `${indent}  `;
  const required = new Set(schema.required ?? []);
  const lines = Object.entries(schema.properties).map(([key, field]) => {
    const name = /^[A-Za-z_$][\w$]*$/.test(key) ? key : JSON.stringify(key);
    return `${comment(field.description, inner)}${inner}readonly ${name}${required.has(key) ? "" : "?"}: ${type(field, inner)};`;
  });
  return `{\n${lines.join("\n")}\n${indent}}`;
}

function type(schema, indent) {
  if (schema === true || schema === undefined) return "unknown";
  if (schema.$ref) return schema.$ref.split("/").at(-1);
  if ("const" in schema) return JSON.stringify(schema.const);
  if (schema.enum) return union(schema.enum.map((value) => JSON.stringify(value)));
  const options = schema.anyOf ?? schema.oneOf;
  if (options) return union(options.map((option) => type(option, indent)));
  if (Array.isArray(schema.type)) return union(schema.type.map((one) => type({ ...schema, type: one }, indent)));
  switch (schema.type) {
    case "string":
      return "string";
    case "integer":
    case "number":
      return "number";
    case "boolean":
      return "boolean";
    case "null":
      return "null";
    case "array":
      return array(type(schema.items, indent));
    case "object":
      if (schema.properties) return shape(schema, indent);
      return `Readonly<Record<string, ${type(schema.additionalProperties || undefined, indent)}>>`;
    default:
      return "unknown";
  }
}

function array(item) {
  return item.includes(" | ") ? `readonly (${item})[]` : `readonly ${item}[]`;
}

function union(options) {
  return [...new Set(options)].join(" | ");
}

function comment(text, indent) {
  if (!text) return "";
  const lines = text.replaceAll("``", "`").replaceAll("*/", "* /").split("\n");
  if (lines.length === 1) return `${indent}/** ${lines[0]} */\n`;
  return `${indent}/**\n${lines.map((line) => `${indent} * ${line}`.trimEnd()).join("\n")}\n${indent} */\n`;
}
