// What mends the certificates between API server and webhook, in each tls.mode of the chart. Pure.
import type { Installation } from '../../kubernetes/chart.ts';
import type { ShellCommands } from '../../output/shell-commands.ts';

/** What has the API server trust the webhook again, in each tls.mode. @returns a command and a hint */
export function trustAgain(
  { name, namespace, tlsMode }: Installation,
  commands: ShellCommands,
): [repair: string, hint: string] {
  if (tlsMode === 'provided')
    return [
      commands.upgrade(['--set-file', 'tls.caBundle=ca.base64']),
      `ca.base64: the authority that signed the certificate for ${name}.${namespace}.svc, PEM, base64-encoded (docs/certificates.md)`,
    ];
  if (tlsMode === 'cert-manager')
    return [
      commands.kubectl([
        ...['--namespace', 'cert-manager', 'rollout', 'restart', 'deployment', 'cert-manager-cainjector'],
      ]),
      'cert-manager writes it; its log says why it has not',
    ];
  return [
    commands.upgrade(),
    `the webhook writes it within seconds, while it runs and has the roles for it: ${commands.kubectlInRelease(['logs', `deployment/${name}`])} says "certificate upkeep failed"`,
  ];
}

/** What gives the webhook another certificate, in each tls.mode. @returns a command and a hint */
export function newCertificate(
  { name, namespace, tlsMode }: Installation,
  commands: ShellCommands,
): [repair: string, hint: string] {
  const server = `${name}.${namespace}.svc`;
  if (tlsMode === 'provided')
    return [
      `${commands.kubectlInRelease(['create', 'secret', 'tls', `${name}-tls`, '--cert=tls.crt', '--key=tls.key', '--dry-run=client', '--output=yaml'])} | ${commands.kubectl(['apply', '--filename=-'])}`,
      `with a certificate for ${server}; where the chart's value tls.secretName is set, into that Secret. It is served within two minutes`,
    ];
  if (tlsMode === 'cert-manager')
    return [
      commands.kubectlInRelease(['delete', 'secret', `${name}-tls`]),
      `cert-manager then signs another one for ${server}`,
    ];
  return [commands.restart(name), `the webhook makes its own, for ${server}: docs/certificates.md`];
}
