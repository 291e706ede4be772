// The command line: failures become a sentence and an exit code here. Results go to standard output, everything else to
// standard error.
import { CommanderError } from 'commander';
import { EXIT, explain, Interrupted } from './errors.ts';
import { createProgram } from './program.ts';

/** Of Node.js: iterators' and sets' own methods, promises from outside. */
const MIN_NODE = 22;
if (Number.parseInt(process.versions.node, 10) < MIN_NODE) {
  process.stderr.write(
    `ecr-anywhere needs Node.js ${MIN_NODE} or later, and this is ${process.versions.node}.\n`,
  );
  process.exit(EXIT.usage);
}

const interruption = new AbortController();
for (const signal of ['SIGINT', 'SIGTERM'] as const) {
  process.on(signal, () => {
    // Whoever asks twice does not want to wait until what is half done is undone.
    if (interruption.signal.aborted) process.exit(EXIT.interrupted);
    interruption.abort(new Interrupted());
  });
}

// Whoever reads the output has seen enough, as `| head` has.
for (const stream of [process.stdout, process.stderr]) stream.on('error', () => process.exit());

try {
  await createProgram(interruption.signal).parseAsync();
} catch (error) {
  if (error instanceof CommanderError) {
    // It has said so itself.
    process.exitCode = error.exitCode === 0 ? 0 : EXIT.usage;
  } else {
    const known = explain(error);
    const { message, hint, exitCode } =
      interruption.signal.aborted && !(known instanceof Interrupted) ? new Interrupted() : known;
    const said = `ecr-anywhere: ${message}\n${hint === undefined ? '' : `  → ${hint}\n`}`;
    // At once: an exec plugin that hangs would keep this process waiting for it.
    process.stderr.write(said, () => process.exit(exitCode));
  }
}
