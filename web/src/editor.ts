import "./adopt";
import { defaultKeymap, history, historyKeymap, indentWithTab } from "@codemirror/commands";
import { yaml } from "@codemirror/lang-yaml";
import { bracketMatching, foldGutter, foldKeymap, HighlightStyle, indentOnInput, syntaxHighlighting } from "@codemirror/language";
import { highlightSelectionMatches, search, searchKeymap } from "@codemirror/search";
import { EditorState } from "@codemirror/state";
import { drawSelection, EditorView, highlightActiveLine, keymap, lineNumbers } from "@codemirror/view";
import { tags as t } from "@lezer/highlight";

const style = HighlightStyle.define([
  { tag: [t.propertyName, t.definition(t.propertyName)], color: "var(--accent)" },
  { tag: [t.string, t.special(t.string)], color: "var(--good)" },
  { tag: [t.comment, t.meta], color: "var(--faint)" },
  { tag: [t.keyword, t.bool, t.number, t.null], color: "var(--unschedulable)" },
]);

const theme = EditorView.theme({
  "&": { height: "100%", fontSize: "12px", color: "var(--ink)", backgroundColor: "var(--paper)" },
  ".cm-scroller": { fontFamily: '"IBM Plex Mono", ui-monospace, monospace', lineHeight: "18px" },
  ".cm-gutters": { backgroundColor: "var(--paper)", color: "var(--faint)", border: "none" },
  ".cm-activeLine": { backgroundColor: "var(--wash)" },
  ".cm-content": { caretColor: "var(--ink)" },
  ".cm-cursor": { borderLeftColor: "var(--ink)" },
  "&.cm-focused": { outline: "2px solid var(--accent)", outlineOffset: "-2px" },
  ".cm-selectionBackground, &.cm-focused > .cm-scroller > .cm-selectionLayer .cm-selectionBackground": { backgroundColor: "var(--cell)" },
  ".cm-panels": { backgroundColor: "var(--wash)", color: "var(--ink)" },
});

/**
 * edit opens an editor in a host, and returns what closes it. It is in a shadow
 * tree, where CodeMirror adopts its style sheets: elements with styles would need
 * a looser content security policy.
 */
export function edit(host: HTMLElement, text: string, changed: (t: string) => void, review: () => void): () => void {
  const root = host.shadowRoot ?? host.attachShadow({ mode: "open" });
  const view = new EditorView({
    root,
    parent: root,
    state: EditorState.create({
      doc: text,
      extensions: [
        lineNumbers(), foldGutter(), history(), drawSelection(), indentOnInput(), bracketMatching(), highlightActiveLine(), highlightSelectionMatches(), search({ top: true }), yaml(), syntaxHighlighting(style), theme,
        EditorView.contentAttributes.of({ "aria-label": "YAML" }),
        EditorView.updateListener.of((u) => {
          if (u.docChanged) changed(u.state.doc.toString());
        }),
        keymap.of([{ key: "Mod-Enter", run: () => (review(), true) }, ...defaultKeymap, ...historyKeymap, ...foldKeymap, ...searchKeymap, { key: "Mod-]", run: indentWithTab.run }, { key: "Mod-[", run: indentWithTab.shift }]),
      ],
    }),
  });
  view.scrollDOM.tabIndex = 0;
  view.focus();
  return () => view.destroy();
}
