// Reads an AsyncAPI document with AsyncAPI's own parser, prints its findings on
// it, and fails on an error or a warning: node check.mjs FILE
import { readFileSync } from "node:fs";
import { Parser } from "@asyncapi/parser";

const { document, diagnostics } = await new Parser().parse(readFileSync(process.argv[2], "utf8"));
const levels = ["error", "warning", "info", "hint"];
for (const d of diagnostics) console.log(levels[d.severity], d.code, d.path.join("/"), d.message);
if (!document || diagnostics.some((d) => d.severity < 2)) process.exit(1);
console.log(`${document.channels().length} channels, ${document.operations().length} operations, ${document.messages().length} messages`);
