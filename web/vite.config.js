import { brotliCompressSync, constants, gzipSync } from "node:zlib";
import { readFileSync, readdirSync, rmSync, writeFileSync } from "node:fs";
import { join } from "node:path";
import { fileURLToPath } from "node:url";
import { defineConfig } from "vite";
import solid from "vite-plugin-solid";

const out = fileURLToPath(new URL("../internal/dash/page/dist", import.meta.url));

// clean removes what an earlier build has left, but for the committed files.
const clean = {
  name: "clean",
  apply: "build",
  buildStart() {
    for (const f of readdirSync(out)) {
      if (f !== ".gitignore" && f !== "absent.html") rmSync(join(out, f), { recursive: true });
    }
  },
};

// compress writes a .gz and a .br beside each text file.
const compress = {
  name: "compress",
  apply: "build",
  closeBundle() {
    const texts = readdirSync(join(out, "assets")).filter((f) => /\.(js|css)$/.test(f)).map((f) => join("assets", f));
    for (const f of [...texts, "index.html"]) {
      const data = readFileSync(join(out, f));
      writeFileSync(join(out, f + ".gz"), gzipSync(data, { level: 9 }));
      writeFileSync(join(out, f + ".br"), brotliCompressSync(data, { params: { [constants.BROTLI_PARAM_SIZE_HINT]: data.length } }));
    }
  },
};

// licenses writes the licences of the packages that are part of the page.
const licenses = {
  name: "licenses",
  apply: "build",
  closeBundle() {
    const modules = fileURLToPath(new URL("node_modules", import.meta.url));
    const lock = JSON.parse(readFileSync(new URL("package-lock.json", import.meta.url)));
    let text = "";
    for (const [path, p] of Object.entries(lock.packages)) {
      if (path === "" || p.dev || p.optional) continue;
      const dir = join(modules, "..", path);
      const file = readdirSync(dir).find((f) => /^licen[cs]e/i.test(f));
      text += `${path.replace("node_modules/", "")} ${p.version} (${p.license})\n\n${file ? readFileSync(join(dir, file), "utf8") : ""}\n\n`;
    }
    writeFileSync(join(out, "licenses.txt"), text);
  },
};

export default defineConfig({
  root: fileURLToPath(new URL(".", import.meta.url)),
  base: "./",
  plugins: [solid(), clean, licenses, compress],
  worker: { format: "es" },
  server: { proxy: Object.fromEntries(["/api", "/apis", "/at", "/debug", "/version", "/dash/stream"].map((p) => [p, { target: process.env.KEELSON_DASH ?? "http://127.0.0.1:8001", ws: true }])) },
  build: { outDir: out, emptyOutDir: false, target: "es2022", assetsInlineLimit: 0, modulePreload: { polyfill: false }, sourcemap: false, reportCompressedSize: false, chunkSizeWarningLimit: 1000,
    // What all views need is one file: each that the page names costs the browser's thread time before anything else.
    rollupOptions: { output: { manualChunks: (id) => (/solid-js|\/src\/(api|live|pace|path|route|say|theme|words|yaml)\.ts|\/picture\/(cells|model|protocol)\.ts|vite\/preload-helper/.test(id) ? "shared" : undefined) } },
  },
});
