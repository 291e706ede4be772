// `npm run bed -- [names of clusters]`: the whole bed, kept up for development until Ctrl-C.
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
console.log(`\n${bed.howToLookAround()}\nCtrl-C ends it.`);
await interrupted();
console.log('ending');
await bed[Symbol.asyncDispose]();
process.exit(0);
