// The audience of a keyless cluster's tokens, of names that somebody has typed.
import { clusterAudience } from '../../contract/keyless.ts';
import { CliError } from '../output/errors.ts';

/** As in contract/keyless.ts. @throws CliError that names which of the two is none */
export function checkedAudience(stackName: string, cluster: string): string {
  try {
    return clusterAudience(stackName, cluster);
  } catch (error) {
    throw new CliError('usage', (error as Error).message, undefined, error);
  }
}
