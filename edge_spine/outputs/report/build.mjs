// Makes viewer.min.js, byte for byte the same from the pinned packages: npm ci && npm run build
import { readFileSync, writeFileSync } from "node:fs";
import { build } from "esbuild";

const licence = readFileSync("node_modules/three/LICENSE", "utf8").replaceAll("\r\n", "\n");
const { version } = JSON.parse(readFileSync("node_modules/three/package.json", "utf8"));
writeFileSync("three.LICENSE.txt", licence);
const head = `edge-spine's 3D viewer, made by build.mjs; it contains three.js ${version}:`;
await build({
  entryPoints: ["viewer.js"],
  outfile: "viewer.min.js",
  bundle: true,
  minify: true,
  format: "iife",
  target: "es2020",
  legalComments: "none",
  banner: { js: `/*! ${head}\n\n${licence.trim()}\n*/` },
});
