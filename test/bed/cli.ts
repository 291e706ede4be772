// `npm run bed -- [cluster names]`: runs the whole test bed for development until Ctrl-C.
import { runSteps } from './progress.ts';
import { Bed, interrupted } from './up.ts';

const names = process.argv.slice(2);
if (names.some((name) => !/^[a-z0-9-]+$/.test(name))) {
  console.error('Usage: npm run bed -- [cluster names: lower-case letters, digits and hyphens]');
  process.exit(2);
}

await using bed = await Bed.create({
  clusters: names.length > 0 ? names : ['alpha'],
  context: { rateMinutes: 1 },
});
await runSteps(bed.tasks());
console.log(`\n${bed.howToLookAround()}\nPress Ctrl-C to stop.`);
await interrupted();
console.log('Stopping…');
await bed[Symbol.asyncDispose]();
process.exit(0);
