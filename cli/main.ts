// The command line: failures become a sentence and an exit code here. Results go to standard output, everything else to
// standard error.
import { CommanderError } from 'commander';
import { EXIT, InterruptedError, toCliError } from './output/errors.ts';
import { createProgram } from './program.ts';

/** Of Node.js, as it is tested: earlier ones know no proxies, and colour what goes into pipes. */
const MIN_NODE = 24;
if (Number.parseInt(process.versions.node, 10) < MIN_NODE) {
  process.stderr.write(
    `ecr-anywhere needs Node.js ${MIN_NODE} or later, and this is ${process.versions.node}.\n`,
  );
  process.exit(EXIT.usage);
}

/** A press of Ctrl-C comes twice where npx hands on what the terminal has sent already. */
const ONE_PRESS_MS = 300;

const interruption = new AbortController();
let interruptedAt = 0;
for (const signal of ['SIGINT', 'SIGTERM', 'SIGHUP'] as const) {
  process.on(signal, () => {
    if (!interruption.signal.aborted) {
      interruptedAt = performance.now();
      interruption.abort(new InterruptedError());
      return;
    }
    // Whoever asks twice does not want to wait until what is half done is undone. Of a terminal that is closed both the
    // system and the shell tell, and nobody has asked for anything.
    if (signal !== 'SIGHUP' && performance.now() - interruptedAt > ONE_PRESS_MS)
      process.exit(EXIT.interrupted);
  });
}

let isChanging = false;
for (const stream of [process.stdout, process.stderr])
  stream.on('error', () => {
    // Whoever reads the output has seen enough, as `| head` has.
    if (!isChanging) process.exit();
    // What is half done is undone, if the command is not over: nobody is there to hear of it, and writing on does no harm.
    interruption.abort(new InterruptedError());
  });

try {
  await createProgram(interruption.signal, () => {
    isChanging = true;
  }).parseAsync();
} catch (error) {
  if (error instanceof CommanderError) {
    // It has said so itself.
    process.exitCode = error.exitCode === 0 ? 0 : EXIT.usage;
  } else {
    const known = toCliError(error);
    const { message, hint, exitCode } =
      interruption.signal.aborted && !(known instanceof InterruptedError) ? new InterruptedError() : known;
    const said = `ecr-anywhere: ${message}\n${hint === undefined ? '' : `  → ${hint}\n`}`;
    // At once: an exec plugin that hangs would keep this process waiting for it.
    process.stderr.write(said, () => process.exit(exitCode));
  }
}
