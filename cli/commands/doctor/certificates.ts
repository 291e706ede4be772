// How to investigate why the API server does not trust the webhook, in each tls.mode of the chart. Pure.
import type { Installation } from '../../kubernetes/chart.ts';
import type { ShellCommands } from '../../output/shell-commands.ts';
import { investigate, type Remedy } from './checks.ts';

const SHOW = 'base64 --decode | openssl x509 -noout -subject -ext subjectAltName -dates';

/** @param object which of the two does not fit: the `caBundle` of the webhook configuration, or the served certificate */
export function investigateCertificate(
  object: 'caBundle' | 'certificate',
  { name, namespace, index, tlsMode }: Installation,
  commands: ShellCommands,
): Remedy {
  const server = `${name}.${namespace}.svc`;
  if (tlsMode === 'cert-manager')
    return investigate(
      object === 'caBundle'
        ? commands.kubectl(['--namespace', 'cert-manager', 'logs', 'deployment/cert-manager-cainjector'])
        : commands.kubectlInRelease(['describe', 'certificates.cert-manager.io']),
      object === 'caBundle'
        ? "cert-manager's cainjector writes the caBundle."
        : `cert-manager issues the certificate for ${server}.`,
    );
  if (tlsMode !== 'provided')
    return investigate(
      commands.kubectlInRelease(['logs', `deployment/${name}`]),
      `The webhook makes its certificate and writes the caBundle itself, within seconds after it starts. It needs the chart's roles for that; ${commands.upgrade()} restores them (docs/certificates.md).`,
    );
  return object === 'caBundle'
    ? investigate(
        `${commands.kubectl(['get', 'mutatingwebhookconfiguration', name, `--output=jsonpath={.webhooks[${index}].clientConfig.caBundle}`])} | ${SHOW}`,
        `It must be the authority that signed the certificate for ${server}. ${commands.upgrade(['--set-file', 'tls.caBundle=ca.base64'])} replaces it by the file ca.base64: PEM, base64-encoded (docs/certificates.md).`,
      )
    : investigate(
        `${commands.kubectlInRelease(['get', 'secret', `${name}-tls`, '--output=jsonpath={.data.tls\\.crt}'])} | ${SHOW}`,
        `It must be valid for ${server}. With the chart's value tls.secretName, the certificate is in that Secret. The webhook serves a new one within two minutes.`,
      );
}
