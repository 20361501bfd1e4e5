// Reads a simulation per line, writes its result per line: {"result": "Allowed" | "ImplicitlyDenied" | …} or {"errors"}.
import { createInterface } from "node:readline";
import { runSimulation } from "@cloud-copilot/iam-simulate";

for await (const line of createInterface({ input: process.stdin })) {
  const simulation = JSON.parse(line);
  simulation.resourcePolicy ??= undefined;
  const { resultType, errors, overallResult } = await runSimulation(simulation, {});
  console.log(JSON.stringify(resultType === "error" ? { errors } : { result: overallResult }));
}
