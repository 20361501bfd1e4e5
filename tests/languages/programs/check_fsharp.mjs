// Type-checks F# files, given in order, with the F# compiler service in JavaScript. Prints its errors.
import fs from "node:fs"
import path from "node:path"
import { createRequire } from "node:module"

const [tools, ...files] = process.argv.slice(2)
const require = createRequire(path.join(tools, "package.json"))
const { init } = require("fable-standalone")
const assemblies = path.join(tools, "node_modules/fable-metadata/lib")
const references = fs.readdirSync(assemblies).filter(name => name.endsWith(".dll")).map(name => name.slice(0, -4))
const read = name => new Uint8Array(fs.readFileSync(path.join(assemblies, path.basename(name))))
const manager = init()
const checker = manager.CreateChecker(references, read, [])
const sources = files.map(file => fs.readFileSync(file, "utf8"))
const results = manager.ParseFSharpProject(checker, "project.fsproj", files, sources)
const errors = (results.Errors ?? manager.GetParseErrors(results)).filter(error => !error.IsWarning)
for (const error of errors) console.log(`${error.FileName}:${error.StartLine}:${error.StartColumn} ${error.Message}`)
process.exit(errors.length ? 1 : 0)
