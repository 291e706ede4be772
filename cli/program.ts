// The commands, their options and their help. What each does is a file of its own, loaded when it is called: kubectl
// runs get-token for each of its own commands.

import tab from '@bomb.sh/tab/commander';
import { Command, Option } from 'commander';
import { DEFAULT_STACK_NAME } from '../contract/keyless.ts';
import manifest from '../package.json' with { type: 'json' };
import type { AuthenticationOptions } from './commands/authentication-config.ts';
import type { GetTokenOptions } from './commands/get-token.ts';
import type { RegisterOptions } from './commands/register/register.ts';
import type { StatusOptions } from './commands/status/status.ts';
import { CliError, type ExitCode } from './output/errors.ts';
import { createIo, type Format, type Io, type IoOptions } from './output/io.ts';
import type { AwsOptions, KubeOptions } from './output/options.ts';

const DAY_SECONDS = 86_400;

type Common = AwsOptions & IoOptions;

const withOutput = (command: Command) =>
  command
    .addOption(
      new Option('-o, --output <format>', 'what to print')
        .choices(['text', 'json'] satisfies Format[])
        .default('text'),
    )
    .option('-q, --quiet', 'no progress, no notes');

const withAws = (command: Command) =>
  command
    .option('--profile <name>', 'AWS profile')
    .option('--region <region>', 'AWS region of the stack')
    .option('--stage <name>', `name of the CDK stack (default: ${DEFAULT_STACK_NAME})`)
    .option('--function <name>', "the refresher's function, where it is part of a stack of yours");

const withKube = (command: Command) =>
  command
    .option('--kubeconfig <file>', 'kubeconfig of yours (default: KUBECONFIG, or ~/.kube/config)')
    .option('--context <name>', 'its context (default: the current one)');

export interface ProgramOptions {
  /** Called before a command that changes something. */
  readonly onChanging?: () => void;
  /** Whether commander prints errors in the command line itself. They are thrown in either case. */
  readonly writesUsageErrors?: boolean;
}

/**
 * The program.
 *
 * @param signal aborts the command
 */
export function createProgram(
  signal: AbortSignal,
  { onChanging = () => {}, writesUsageErrors = true }: ProgramOptions = {},
): Command {
  const program = new Command('ecr-anywhere')
    .description(
      'Private ECR images from any Kubernetes cluster: registers clusters, and shows how they are.',
    )
    .version(manifest.version)
    .showSuggestionAfterError()
    .showHelpAfterError('(--help says more)')
    .configureHelp({ showGlobalOptions: true })
    .exitOverride()
    .configureOutput(writesUsageErrors ? {} : { writeErr: () => {} })
    .addHelpText(
      'after',
      `
Exit codes: 0 done; 1 something is wrong with a cluster; 2 not understood; 3 sign in to AWS; 4 not allowed;
5 no such cluster, stack or context; 6 in the way of something; 7 no answer; 10 failed; 130 interrupted.

A cluster's registered kubeconfig is read by the deployed function and nowhere else.`,
    );

  const run = async (options: object, work: (io: Io) => Promise<ExitCode | undefined>) => {
    process.exitCode = (await work(createIo(signal, options as IoOptions))) ?? 0;
  };
  const change: typeof run = (options, work) => {
    onChanging();
    return run(options, work);
  };

  withKube(withOutput(withAws(program.command('register'))))
    .argument('<name>', 'what the cluster is to be called')
    .summary('have a cluster refreshed from now on')
    .description(
      'Checks what the chart has installed, obtains a credential of its refresher, stores it in Secrets Manager, and proves it by a run limited to this cluster. What cannot be proved is taken back.',
    )
    .option('--server <url>', "the API server's address as AWS reaches it (default: the context's)")
    .option(
      '--duration <hours>',
      'how long the token lives, renewed from half of it on (default: 168)',
      hours,
    )
    .option(
      '--credential <kubeconfig>',
      `register this kubeconfig's identity in place of a token: a member of the group that the fence is around`,
    )
    .addOption(
      new Option('--eks [name]', "an EKS cluster, by its own tokens (default: the context's)").conflicts([
        'credential',
        'keyless',
        'duration',
      ]),
    )
    .addOption(
      new Option('--keyless', 'by tokens of the account’s issuer: nothing is stored').conflicts([
        'credential',
        'duration',
      ]),
    )
    .option('--issuer <url>', 'with --keyless: the account’s issuer (default: asked for)')
    .option(
      '--wait <seconds>',
      'with --keyless: how long to wait until the API server takes the token',
      seconds,
      0,
    )
    .option('--replace', 'the cluster is registered already: give it another credential')
    .option('--dry-run', 'check everything, and store nothing')
    .action((name, options: RegisterOptions) =>
      change(options, async (io) =>
        (await import('./commands/register/register.ts')).register(name, options, io),
      ),
    );

  withOutput(withAws(program.command('unregister')))
    .argument('<name>', 'a registered cluster')
    .summary('end the tokens of a cluster, and forget it')
    .description(
      'Has the refresher delete the Secret that the registered token is bound to, which ends it and all that came of it, then deletes the registration. The managed Secrets stay, and expire.',
    )
    .option('--keep-token', 'forget the cluster even if its token cannot be ended')
    .action((name, options: Common) =>
      change(options, async (io) => (await import('./commands/unregister.ts')).unregister(name, options, io)),
    );

  withOutput(withAws(program.command('list')))
    .summary('the clusters that there are')
    .action((options: Common) =>
      run(options, async (io) => (await import('./commands/list.ts')).list(options, io)),
    );

  for (const [name, summary] of [
    ['pause', 'have a cluster left alone'],
    ['resume', 'have it refreshed again'],
  ] as const) {
    withOutput(withAws(program.command(name)))
      .argument('<name>', 'a cluster')
      .summary(summary)
      .action((cluster, options: Common) =>
        change(options, async (io) =>
          (await import('./commands/pause.ts')).setPaused(cluster, name === 'pause', options, io),
        ),
      );
  }

  withOutput(withAws(program.command('refresh')))
    .argument('<name>', 'a cluster')
    .summary('refresh a cluster now')
    .description('Asks for a refresh of what is due now, and says what came of each Secret.')
    .option('-n, --namespace <name...>', 'only these namespaces')
    .option('--force', 'what is not due, too, and past the token cache: after a role change or a leak')
    .option('--dry-run', 'API server and webhook answer as they would, and nothing is stored')
    .action((name, options: Common) =>
      change(options, async (io) => (await import('./commands/refresh.ts')).refresh(name, options, io)),
    );

  withOutput(withAws(program.command('status')))
    .summary('how the clusters are, who needs you first')
    .description('A table of all clusters, from what the refresher last knew.')
    .option('--live', 'ask the clusters themselves, by a dry run')
    .option('--watch', 'again and again, until Ctrl-C')
    .addOption(new Option('--interval <seconds>', 'with --watch').argParser(interval).default(10))
    .action((options: StatusOptions) =>
      run(options, async (io) => (await import('./commands/status/status.ts')).status(options, io)),
    );

  withKube(withOutput(withAws(program.command('doctor'))))
    .argument('[name]', 'a cluster; without it all of them, as far as they can be seen from AWS')
    .summary('find the first broken link between AWS and a pull')
    .description(
      'Walks the chain from your AWS session to the credentials in a Secret, names the first broken link, what that means, and what commands it. Looks into the cluster as you; changes nothing.',
    )
    .action((name: string | undefined, options: Common & KubeOptions) =>
      run(options, async (io) => (await import('./commands/doctor/doctor.ts')).doctor(name, options, io)),
    );

  program
    .command('get-token')
    .summary('a token for a keyless cluster, for kubectl')
    .description('Has STS sign a token for whoever runs it, and prints it as an ExecCredential for kubectl.')
    .requiredOption('--cluster <name>', 'as it is registered')
    .option('--stage <name>', 'name of the CDK stack', DEFAULT_STACK_NAME)
    .option('--region <region>', "AWS region (default: AWS_REGION, or the profile's)")
    .option('--profile <name>', 'AWS profile')
    .addHelpText(
      'after',
      `
In a kubeconfig:
  users:
  - name: ecr-anywhere
    user:
      exec:
        apiVersion: client.authentication.k8s.io/v1
        interactiveMode: Never
        command: ecr-anywhere
        args: [get-token, --cluster, NAME]`,
    )
    .action((options: GetTokenOptions) =>
      run(options, async (io) => (await import('./commands/get-token.ts')).getToken(options, io)),
    );

  program
    .command('authentication-config')
    .summary("a keyless cluster's AuthenticationConfiguration, for its API server")
    .description(
      "Prints an AuthenticationConfiguration (Kubernetes 1.30 and later) for kube-apiserver's --authentication-config, by which the refresher's role is a member of the group that the fence is around.",
    )
    .requiredOption('--cluster <name>', 'as it is registered')
    .requiredOption('--issuer <url>', "the account's: aws iam get-outbound-web-identity-federation-info")
    .requiredOption('--role-arn <arn>', "the stack's output RoleArn")
    .option('--stage <name>', 'name of the CDK stack', DEFAULT_STACK_NAME)
    .addOption(
      new Option('--api-version <version>', 'v1 for Kubernetes 1.34 and later')
        .choices(['v1beta1', 'v1'])
        .default('v1beta1'),
    )
    .action((options: AuthenticationOptions) =>
      run(options, async (io) =>
        (await import('./commands/authentication-config.ts')).authenticationConfig(options, io),
      ),
    );

  tab(program, { completionCommandName: 'completion' });
  program.commands
    .find((command) => command.name() === 'completion')
    ?.hook('preAction', (command) => {
      if (command.args[0] === 'bash') process.stdout.write(BASH_WORDS);
    });

  return program;
}

/** What the script for bash takes from the package bash-completion, for where that is not installed. */
const BASH_WORDS = `if ! declare -F _get_comp_words_by_ref >/dev/null; then
  _get_comp_words_by_ref() {
    words=("\${COMP_WORDS[@]}") cword=$COMP_CWORD
    cur=\${words[cword]} prev=\${words[cword - 1]}
  }
fi
`;

function hours(text: string): number {
  return positive(text, 'hours');
}

function seconds(text: string): number {
  return positive(text, 'seconds');
}

/** Each look is an invocation; and longer than days no timer waits. */
function interval(text: string): number {
  const value = seconds(text);
  if (value < 1 || value > DAY_SECONDS)
    throw new CliError('usage', `--interval must be from 1 to ${DAY_SECONDS} seconds`);
  return value;
}

function positive(text: string, unit: string): number {
  const value = Number(text);
  if (!(value > 0) || !Number.isFinite(value))
    throw new CliError('usage', `"${text}" is no number of ${unit}`);
  return value;
}
