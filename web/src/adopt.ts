/**
 * What xterm and CodeMirror need where the content security policy forbids style
 * elements and style attributes: the text of such elements goes to style sheets
 * that the document adopts, and the value of such attributes to the element's
 * declarations. Both are what a script may do itself, so the policy stays strict
 * about what comes as text.
 */
const set = Element.prototype.setAttribute, create = document.createElement;

Element.prototype.setAttribute = function (key: string, value: string) {
  if (key === "style" && this instanceof HTMLElement) this.style.cssText = value;
  else set.call(this, key, value);
};

document.createElement = function (this: Document, name: string, options?: ElementCreationOptions) {
  if (name !== "style") return create.call(document, name, options);
  const el = create.call(document, "x-style"), sheet = new CSSStyleSheet();
  document.adoptedStyleSheets = [...document.adoptedStyleSheets, sheet];
  Object.defineProperty(el, "textContent", { set: (text: string) => sheet.replaceSync(text), get: () => "" });
  el.remove = () => {
    document.adoptedStyleSheets = document.adoptedStyleSheets.filter((s) => s !== sheet);
    Element.prototype.remove.call(el);
  };
  return el;
} as typeof document.createElement;
