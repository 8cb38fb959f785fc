/** What the page does with YAML: the server writes and reads it. */

/** withoutFields cuts metadata.managedFields out of the YAML of an object, as the server writes it. */
export function withoutFields(yaml: string): string {
  const lines = yaml.split("\n"), out: string[] = [];
  let inMetadata = false, cutting = false;
  for (const l of lines) {
    // Text of several lines is indented, so that a key in the first column is always one of the object.
    if (/^\S/.test(l)) inMetadata = l.startsWith("metadata:");
    if (inMetadata && l === "  managedFields:") {
      cutting = true;
      continue;
    }
    if (cutting && (/^ {2}- /.test(l) || /^ {3,}/.test(l) || l === "")) continue;
    cutting = false;
    out.push(l);
  }
  return out.join("\n");
}

const plain = /^[A-Za-z_/][\w ./@%+=,()-]*$/;
const words = /^(true|false|yes|no|on|off|null|y|n|~)$/i;

function scalar(v: unknown): string {
  if (typeof v !== "string") return JSON.stringify(v);
  return plain.test(v) && !words.test(v) && !v.endsWith(" ") ? v : JSON.stringify(v);
}

/** toYAML writes a value of JSON for people to read. */
export function toYAML(v: unknown, indent = ""): string {
  if (Array.isArray(v)) {
    if (!v.length) return indent + "[]\n";
    return v.map((e) => {
      const text = toYAML(e, indent + "  ");
      return indent + "- " + text.slice(indent.length + 2);
    }).join("");
  }
  if (v !== null && typeof v === "object") {
    const keys = Object.keys(v).sort();
    if (!keys.length) return indent + "{}\n";
    return keys.map((k) => {
      const e = (v as Record<string, unknown>)[k], key = indent + (plain.test(k) && !words.test(k) ? k : JSON.stringify(k)) + ":";
      if (typeof e === "string" && e.includes("\n") && !/^\s|[\r\t]| \n/.test(e)) {
        const text = e.endsWith("\n") ? e.slice(0, -1) : e;
        if (!text.endsWith("\n")) return `${key} |${e.endsWith("\n") ? "" : "-"}\n${text.split("\n").map((l) => (l ? indent + "  " + l : "")).join("\n")}\n`;
      }
      if (e !== null && typeof e === "object" && Object.keys(e).length) return key + "\n" + toYAML(e, Array.isArray(e) ? indent : indent + "  ");
      return key + " " + toYAML(e);
    }).join("");
  }
  return indent + scalar(v) + "\n";
}

/** stringOf returns the text of a key of an object that the server wrote as YAML. */
export function stringOf(yaml: string, key: string): string | undefined {
  const lines = yaml.split("\n"), at = lines.findIndex((l) => l.startsWith(key + ": "));
  if (at < 0) return undefined;
  const first = lines[at].slice(key.length + 2), more: string[] = [];
  for (let i = at + 1; i < lines.length && (/^ /.test(lines[i]) || (lines[i] === "" && i < lines.length - 1)); i++) more.push(lines[i].replace(/^ {2}/, ""));
  if (/^[|>]/.test(first)) return more.join(first[0] === "|" ? "\n" : " ").trimEnd();
  // A long line is broken at a space, and a line break in the text is an empty line.
  let text = first;
  more.forEach((l, i) => (text += l === "" ? "\n" : (i && more[i - 1] === "" ? "" : " ") + l.trimStart()));
  if (text.startsWith("'")) return text.slice(1, -1).replaceAll("''", "'");
  if (text.startsWith('"')) {
    try {
      return JSON.parse(text.replaceAll("\\ ", " ").replace(/\\ ?\s+\\?/g, ""));
    } catch {
      return text.slice(1, -1);
    }
  }
  return text;
}
