#!/usr/bin/env node
// The command of the npm package. The bundle of the command line cannot be loaded by an older Node.js, whatever it checks itself.
const OLDEST = 24;
if (Number.parseInt(process.versions.node, 10) >= OLDEST) await import('./ecr-anywhere.mjs');
else {
  console.error(`ecr-anywhere needs Node.js ${OLDEST} or later, and this is ${process.versions.node}.`);
  process.exitCode = 2;
}
