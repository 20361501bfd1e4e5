// Parses a Dart file with the Dart team's formatter in JavaScript. Prints its error.
import fs from "node:fs"
import path from "node:path"
import { createRequire } from "node:module"

const [tools, file] = process.argv.slice(2)
const { formatCode } = createRequire(path.join(tools, "package.json"))("dart-style")
const result = formatCode(fs.readFileSync(file, "utf8"))
if (result.error) console.log(String(result.error).slice(0, 2000))
process.exit(result.error ? 1 : 0)
