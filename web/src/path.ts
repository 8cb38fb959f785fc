/**
 * segment is a text as a part of a path. The browser would take "." and ".." for
 * steps in the path, so that a link with such a name would lead to another object.
 */
export function segment(text: string): string {
  if (text === "." || text === ".." || text === "") throw new Error(`${JSON.stringify(text)} is not the name of anything`);
  return encodeURIComponent(text);
}

/** prefix is the path of a resource's group and version. */
export const prefix = (group: string, version: string): string => (group === "" || group === "core" ? `/api/${segment(version)}` : `/apis/${segment(group)}/${segment(version)}`);

/** path is that of a resource, of its objects in a namespace, or of one object. */
export function path(r: { group: string; version: string; plural: string }, namespace = "", name = ""): string {
  return prefix(r.group, r.version) + (namespace ? `/namespaces/${segment(namespace)}` : "") + `/${segment(r.plural)}` + (name ? `/${segment(name)}` : "");
}
