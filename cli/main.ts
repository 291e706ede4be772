// Runs the command line and turns failures into a message and an exit code. Results go to standard output, everything
// else to standard error.
import { CommanderError } from 'commander';
import { CliError, EXIT, errorJson, errorText, InterruptedError, toCliError } from './output/errors.ts';
import { createProgram } from './program.ts';

/** The oldest Node.js release that is tested. Earlier ones ignore proxies and write colours into pipes. */
const MIN_NODE = 24;
if (Number.parseInt(process.versions.node, 10) < MIN_NODE) {
  process.stderr.write(
    `ecr-anywhere needs Node.js ${MIN_NODE} or later, and this is ${process.versions.node}.\n`,
  );
  process.exit(EXIT.usage);
}

/** npx forwards the Ctrl-C that the terminal has already sent, so one press can arrive twice within this time. */
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
    // A second signal exits at once. SIGHUP does not count: for one closed terminal both the kernel and
    // the shell send it.
    if (signal !== 'SIGHUP' && performance.now() - interruptedAt > ONE_PRESS_MS)
      process.exit(EXIT.interrupted);
  });
}

let isChanging = false;
for (const stream of [process.stdout, process.stderr])
  stream.on('error', () => {
    // The reader closed the pipe, as `| head` does.
    if (!isChanging) process.exit();
    // A command that changes something waits for the response first. Further writes to the closed stream do no harm.
    interruption.abort(new InterruptedError());
  });

const isJson = process.argv.some(
  (argument, index) =>
    /^(--output=|-o)json$/.test(argument) ||
    (argument === 'json' && /^(--output|-[a-z]*o)$/.test(process.argv[index - 1] ?? '')),
);

try {
  await createProgram(interruption.signal, {
    onChanging: () => {
      isChanging = true;
    },
    writesUsageErrors: !isJson,
  }).parseAsync();
} catch (error) {
  if (error instanceof CommanderError && (error.exitCode === 0 || !isJson)) {
    // Commander has printed the help, or the error.
    process.exitCode = error.exitCode === 0 ? 0 : EXIT.usage;
  } else {
    const failure = failureOf(error);
    // Exits at once: an exec plugin that hangs would keep this process alive.
    process.stderr.write(`${isJson ? errorJson(failure) : errorText(failure)}\n`, () =>
      process.exit(failure.exitCode),
    );
  }
}

function failureOf(error: unknown): CliError {
  if (error instanceof CommanderError)
    return new CliError('usage', error.message.replace(/^error: /, ''), 'ecr-anywhere help');
  const failure = toCliError(error);
  return interruption.signal.aborted && !(failure instanceof InterruptedError)
    ? new InterruptedError()
    : failure;
}
