// The parts of an EKS cluster's ARN. Pure.

/** Splits `arn:aws:eks:REGION:ACCOUNT:cluster/NAME`; parts that are missing are empty. */
export function parseEksArn(arn: string): { readonly region: string; readonly name: string } {
  const [, , , region = '', , resource = ''] = arn.split(':');
  return { region, name: resource.replace(/^cluster\//, '') };
}
