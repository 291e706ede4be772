// The audience of a keyless cluster's tokens, for names from the command line.
import { clusterAudience } from '../../contract/keyless.ts';
import { CliError } from '../output/errors.ts';

/** clusterAudience of contract/keyless.ts. @throws CliError that names the invalid one of the two */
export function checkedAudience(stackName: string, cluster: string): string {
  try {
    return clusterAudience(stackName, cluster);
  } catch (error) {
    throw new CliError('usage', (error as Error).message, undefined, error);
  }
}
