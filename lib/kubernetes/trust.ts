// Trusts a bundle of certificates as Go does, so that a bundle with which kubectl and the API server work also works here.

/** Splits a PEM text into its certificates. Other blocks and text are left out. */
export function certificatesIn(pem: string): string[] {
  return pem.match(/-----BEGIN CERTIFICATE-----[^-]+-----END CERTIFICATE-----/g) ?? [];
}

/**
 * The options of `tls.connect` and `tls.createSecureContext` that trust a bundle (PEM). Go trusts every certificate of it as a
 * root, also an intermediate authority without its root, and skips one that it cannot parse. OpenSSL requires that a chain ends
 * at a self-signed certificate, and ignores all that follows an invalid one, unless each is passed by itself.
 */
export function trust(bundle: string): { readonly ca: string[]; readonly allowPartialTrustChain: true } {
  return { ca: certificatesIn(bundle), allowPartialTrustChain: true };
}
