// The commands, their options and their help. Each command is a module that is loaded when it is called: kubectl runs
// get-token before each of its own commands.

import tab from '@bomb.sh/tab/commander';
import { Command, Option } from 'commander';
import { DEFAULT_STACK_NAME } from '../contract/keyless.ts';
import manifest from '../package.json' with { type: 'json' };
import type { AuthenticationOptions } from './commands/authentication-config.ts';
import type { GetTokenOptions } from './commands/get-token.ts';
import type { RefreshOptions } from './commands/refresh.ts';
import type { RegisterOptions } from './commands/register/register.ts';
import type { StatusOptions } from './commands/status/status.ts';
import type { UnregisterOptions } from './commands/unregister.ts';
import { parseDuration } from './output/duration.ts';
import { CliError, type ExitCode } from './output/errors.ts';
import { createIo, type Format, type Io, type IoOptions } from './output/io.ts';
import type { AwsOptions, KubeOptions } from './output/options.ts';

const SECOND_MS = 1_000;
const HOUR_MS = 3_600_000;
/** Timers cannot wait for more than 24 days. */
const MAX_INTERVAL_MS = 24 * HOUR_MS;

type Common = AwsOptions & IoOptions;

const withOutput = (command: Command, formats: readonly Format[] = ['text', 'json']) =>
  command
    .addOption(new Option('-o, --output <format>', 'output format').choices(formats).default(formats[0]))
    .option('-q, --quiet', 'do not print progress and notes');

const withStackName = (command: Command) =>
  command
    .option('--stack-name <name>', `name of the CDK stack (default: ${DEFAULT_STACK_NAME})`)
    // The former name, which kubeconfigs that `register --keyless` generated contain.
    .addOption(new Option('--stage <name>').hideHelp());

const withAws = (command: Command) =>
  withStackName(
    command.option('--profile <name>', 'AWS profile').option('--region <region>', 'AWS region of the stack'),
  ).option('--function <name>', "name or ARN of the refresher's function, if it is part of your own stack");

const withKube = (command: Command) =>
  command
    .option('--kubeconfig <file>', 'your kubeconfig (default: KUBECONFIG, or ~/.kube/config)')
    .option('--context <name>', 'the context in it (default: the current one)');

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
      'Gives Kubernetes clusters access to private ECR images: registers clusters, and shows their state.',
    )
    .version(manifest.version)
    .showSuggestionAfterError()
    .showHelpAfterError('(add --help for the usage)')
    .configureHelp({ showGlobalOptions: true })
    .exitOverride()
    .configureOutput(writesUsageErrors ? {} : { writeErr: () => {} })
    .helpCommand(false)
    .hook('preAction', (_, command) => {
      const { stage, stackName = stage } = command.opts<{ stage?: string; stackName?: string }>();
      if (stage !== undefined) command.setOptionValue('stackName', stackName);
    })
    .addHelpText(
      'after',
      `
Exit codes: 0 success; 1 a cluster has a problem; 2 invalid command line; 3 no valid credentials; 4 access denied;
5 no such cluster, stack, context or chart; 6 conflict; 7 network; 10 other failure; 130 interrupted.

Commands about registered clusters call the deployed Lambda function. Only that function reads registered kubeconfigs.`,
    );

  const run = async (options: object, work: (io: Io) => Promise<ExitCode | undefined>) => {
    process.exitCode = (await work(createIo(signal, options as IoOptions))) ?? 0;
  };
  const change: typeof run = (options, work) => {
    onChanging();
    return run(options, work);
  };

  const register = program.command('register');
  const parseOptions = register.parseOptions.bind(register);
  register.parseOptions = (args) => {
    // Commander would suggest --eks again.
    if (args.some((arg) => arg.startsWith('--eks=')))
      register.error("error: option '--eks' takes no value: name the EKS cluster with --eks-name");
    return parseOptions(args);
  };
  withKube(withOutput(withAws(register)))
    .argument('<name>', 'name for the cluster')
    .summary('register a cluster, so that its Secrets are refreshed')
    .description(
      'Checks the installed chart, obtains a credential for the refresher, stores it in Secrets Manager, and verifies it by a run limited to this cluster. No run uses a registration before it is verified. If the command is interrupted or fails, the same command completes the registration.',
    )
    .option('--server <url>', "URL of the API server as AWS reaches it (default: the context's)")
    .option(
      '--duration <duration>',
      'lifetime of the token, such as 168h; it is renewed after half of it (a plain number: hours)',
      (text) => positiveDuration('--duration', text, HOUR_MS) / HOUR_MS,
    )
    .option(
      '--credential <kubeconfig>',
      'register the identity of this kubeconfig, a member of the group ecr-anywhere:refreshers, instead of a token',
    )
    .addOption(
      new Option('--eks', "use the refresher's own role by an EKS access entry").conflicts([
        'credential',
        'keyless',
        'duration',
      ]),
    )
    .addOption(
      new Option('--eks-name <name>', "name of the EKS cluster; implies --eks (default: the context's)")
        .implies({ eks: true })
        .conflicts(['credential', 'keyless', 'duration']),
    )
    .addOption(
      new Option('--keyless', "use tokens of the AWS account's issuer, and store none").conflicts([
        'credential',
        'duration',
      ]),
    )
    .option(
      '--issuer <url>',
      "with --keyless: URL of the account's issuer (default: read from a token of STS)",
    )
    .option(
      '--wait <duration>',
      'with --keyless: how long to wait until the API server accepts the token (a plain number: seconds)',
      (text) => (text === '0' ? 0 : positiveDuration('--wait', text, SECOND_MS) / SECOND_MS),
      0,
    )
    .option('--replace', 'give a registered cluster another credential')
    .option('--dry-run', 'check everything, and store nothing')
    .action((name, options: RegisterOptions) =>
      change(options, async (io) =>
        (await import('./commands/register/register.ts')).register(name, options, io),
      ),
    );

  withOutput(withAws(program.command('unregister')))
    .argument('<name>', 'name of a registered cluster')
    .summary("revoke a cluster's token, and delete its registration")
    .description(
      'Has the refresher delete the Secret that the registered token is bound to. This revokes the token and all tokens that it was renewed to. Then deletes the registration. The managed Secrets stay until their credentials expire.',
    )
    .option('--keep-token', 'delete the registration without revoking the token')
    .action((name, options: UnregisterOptions) =>
      change(options, async (io) => (await import('./commands/unregister.ts')).unregister(name, options, io)),
    );

  for (const [name, summary] of [
    ['pause', 'stop refreshing a cluster'],
    ['resume', 'refresh a paused cluster again'],
  ] as const) {
    withOutput(withAws(program.command(name)))
      .argument('<name>', 'name of a cluster')
      .description(summary)
      .action((cluster, options: Common) =>
        change(options, async (io) =>
          (await import('./commands/pause.ts')).setPaused(cluster, name === 'pause', options, io),
        ),
      );
  }

  withOutput(withAws(program.command('refresh')))
    .argument('<name>', 'name of a cluster')
    .summary('refresh the due Secrets of a cluster now')
    .description('Refreshes the Secrets of a cluster that are due, and prints the outcome of each.')
    .option(
      '-n, --namespace <name>',
      'refresh only the Secrets of this namespace (can be repeated)',
      (name, names: readonly string[] = []) => [...names, name],
    )
    .option('--force', 'refresh all Secrets, with new tokens: after a change of a role, or a leak')
    .option('--dry-run', 'send dry-run requests: the webhook runs, and nothing is stored')
    .action((name, options: RefreshOptions) =>
      change(options, async (io) => (await import('./commands/refresh.ts')).refresh(name, options, io)),
    );

  withOutput(withAws(program.command('status')), ['text', 'wide', 'json'])
    .summary('show all clusters, the most urgent first')
    .description('Prints a table of all clusters, from the state that the refresher has saved.')
    .option('--live', 'run a dry run over the clusters first')
    .option('--watch', 'repeat until Ctrl-C')
    .option(
      '--interval <duration>',
      'with --watch: time between two updates (a plain number: seconds; default: 10s)',
      interval,
    )
    .action((options: StatusOptions) =>
      run(options, async (io) => (await import('./commands/status/status.ts')).status(options, io)),
    );

  withKube(withOutput(withAws(program.command('doctor'))))
    .argument('[name]', 'name of a cluster (default: all clusters, as far as they can be checked from AWS)')
    .option('-n, --namespace <name>', 'check that managed Secrets of this namespace get credentials')
    .option('--in-cluster', 'check the cluster of the context, whose refresher runs in it, without AWS')
    .summary('find what keeps a cluster from getting credentials')
    .description(
      'Checks everything from your AWS session to the credentials in a Secret. For each failure, prints what it means and a command. Uses your own access to the cluster, and changes nothing.',
    )
    .action(
      (
        name: string | undefined,
        options: Common & KubeOptions & { namespace?: string; inCluster?: boolean },
      ) =>
        run(options, async (io) => (await import('./commands/doctor/doctor.ts')).doctor(name, options, io)),
    );

  withOutput(withStackName(program.command('get-token')))
    .summary('print a token for a keyless cluster, as an exec plugin of kubectl')
    .description(
      'Has STS sign a token for your AWS identity, and prints it as an ExecCredential for kubectl, which is JSON in either output format.',
    )
    .requiredOption('--cluster <name>', 'registered name of the cluster')
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

  withOutput(withStackName(program.command('authentication-config')))
    .summary("print a keyless cluster's AuthenticationConfiguration for its API server")
    .description(
      "Prints an AuthenticationConfiguration (Kubernetes 1.30 and later) for kube-apiserver's --authentication-config. It makes the refresher's role a member of the group that the write policy restricts. The text is YAML.",
    )
    .requiredOption('--cluster <name>', 'registered name of the cluster')
    .requiredOption(
      '--issuer <url>',
      "URL of the account's issuer: aws iam get-outbound-web-identity-federation-info",
    )
    .requiredOption('--role-arn <arn>', "ARN of the refresher's role: the output RoleArn of the stack")
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

  program
    .command('help')
    .argument('[command]')
    .description('print the help of a command')
    .action((name?: string) => {
      const found = name === undefined ? program : program.commands.find((one) => one.name() === name);
      if (!found)
        throw new CliError(
          'usage',
          `There is no command "${name}".`,
          'ecr-anywhere help lists the commands.',
        );
      found.help();
    });

  tab(program, { completionCommandName: 'completion' });
  program.commands
    .find((command) => command.name() === 'completion')
    ?.summary('print a completion script for a shell')
    .hook('preAction', (command) => {
      if (command.args[0] === 'bash') process.stdout.write(BASH_WORDS);
    });

  return program;
}

/** A function of the package bash-completion that the script for bash calls, for systems without that package. */
const BASH_WORDS = `if ! declare -F _get_comp_words_by_ref >/dev/null; then
  _get_comp_words_by_ref() {
    words=("\${COMP_WORDS[@]}") cword=$COMP_CWORD
    cur=\${words[cword]} prev=\${words[cword - 1]}
  }
fi
`;

/** @returns seconds */
function interval(text: string): number {
  const ms = positiveDuration('--interval', text, SECOND_MS);
  if (ms < SECOND_MS || ms > MAX_INTERVAL_MS)
    throw new CliError('usage', '--interval must be between 1s and 24h.', 'For example: --interval 30s');
  return ms / SECOND_MS;
}

/** @param unitMs milliseconds that a plain number counts @returns milliseconds */
function positiveDuration(option: string, text: string, unitMs: number): number {
  const ms = parseDuration(text, unitMs);
  if (ms === undefined || !(ms > 0) || !Number.isFinite(ms))
    throw new CliError(
      'usage',
      `"${text}" is not a duration for ${option}.`,
      `For example: ${option} ${unitMs === HOUR_MS ? '168h' : '90s'}`,
    );
  return ms;
}
