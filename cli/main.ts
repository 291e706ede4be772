// The command line: commands by name, each a file of its own. Prints its result to standard output and everything else
// to standard error. Exit code 1: it could not be done; 2: it was not understood.
import { authenticationConfig } from './authentication-config.ts';
import { type Command, UsageError } from './command.ts';
import { getToken } from './get-token.ts';

const COMMANDS: Readonly<Record<string, Command>> = {
  'get-token': getToken,
  'authentication-config': authenticationConfig,
};

async function main([name = '', ...args]: readonly string[]): Promise<number> {
  const command = Object.hasOwn(COMMANDS, name) ? COMMANDS[name] : undefined;
  if (!command) {
    const isHelp = ['--help', '-h', 'help'].includes(name);
    const list = Object.entries(COMMANDS).map(([known, { summary }]) => `  ${known.padEnd(24)}${summary}`);
    const usage = ['Usage: ecr-anywhere COMMAND [OPTIONS]', '', ...list, '', 'COMMAND --help says more.', ''];
    (isHelp ? process.stdout : process.stderr).write(
      `${isHelp || name === '' ? '' : `There is no command "${name}".\n\n`}${usage.join('\n')}`,
    );
    return isHelp ? 0 : 2;
  }
  if (args.some((arg) => arg === '--help' || arg === '-h')) {
    process.stdout.write(`${command.usage}\n`);
    return 0;
  }
  try {
    process.stdout.write(`${await command.run(args)}\n`);
    return 0;
  } catch (error) {
    const message = error instanceof Error ? error.message : String(error);
    process.stderr.write(`ecr-anywhere ${name}: ${message}\n`);
    if (!(error instanceof UsageError)) return 1;
    process.stderr.write(`\n${command.usage}\n`);
    return 2;
  }
}

process.exitCode = await main(process.argv.slice(2));
