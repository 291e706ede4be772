// How the scripts of a release refuse: with a sentence for people, and a code for tests.

/** A script of the release refuses to do its work, and has done nothing. */
export class ReleaseError<Code extends string> extends Error {
  readonly code: Code;

  constructor(code: Code, message: string) {
    super(message);
    this.code = code;
  }
}

/** Does a script's work. Prints a ReleaseError without a stack trace, and sets the exit code to 1. */
export function orRefuse(work: () => void): void {
  try {
    work();
  } catch (error) {
    if (!(error instanceof ReleaseError)) throw error;
    console.error(`✖ ${error.message} (${error.code})`);
    process.exitCode = 1;
  }
}
