// node validate.mjs FILE: exits 1 and prints every finding of AsyncAPI's own parser, warnings included.
import { readFileSync } from "node:fs";
import { Parser, DiagnosticSeverity } from "@asyncapi/parser";

const { document, diagnostics } = await new Parser().parse(readFileSync(process.argv[2], "utf8"));
// Information, such as "a newer version of the specification exists", is not about our document.
const findings = diagnostics.filter(
  (found) => found.severity === DiagnosticSeverity.Error || found.severity === DiagnosticSeverity.Warning,
);
for (const found of findings) {
  console.log(`${DiagnosticSeverity[found.severity]}: ${found.path.join(".")}: ${found.message}`);
}
if (document) {
  const counts = { channels: document.channels().length, operations: document.operations().length, messages: document.messages().length };
  console.log(JSON.stringify(counts));
}
process.exit(document && findings.length === 0 ? 0 : 1);
