// Asks aws-iam-authenticator's own verifier, the one that EKS runs, what it makes of a bearer token.
//
// Reads {"cluster", "partition", "region", "token"} from standard input. Prints whose the token is, or why it is
// refused ({"error": …}, exit code 1). Exit code 2 is no verdict: the question was wrong.
package main

import (
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"net/url"
	"os"

	"sigs.k8s.io/aws-iam-authenticator/pkg/token"
)

type question struct {
	Cluster   string `json:"cluster"`
	Partition string `json:"partition"`
	Region    string `json:"region"`
	Token     string `json:"token"`
}

// The library's names; it has no JSON of its own for them.
type identity struct {
	ARN          string `json:"arn"`
	CanonicalARN string `json:"canonicalARN"`
	AccountID    string `json:"accountID"`
	UserID       string `json:"userID"`
	SessionName  string `json:"sessionName"`
	AccessKeyID  string `json:"accessKeyID"`
	STSEndpoint  string `json:"stsEndpoint"`
}

type refusal struct {
	Error string `json:"error"`
}

// toDouble sends every request to the STS double. Only the wire changes: the token's URL, which the verifier checks,
// and the Host header, which the signature covers, stay those of the real STS.
type toDouble struct {
	double *url.URL
	wire   http.RoundTripper
}

func (t toDouble) RoundTrip(request *http.Request) (*http.Response, error) {
	redirected := request.Clone(request.Context())
	redirected.Host = request.URL.Host
	redirected.URL.Scheme, redirected.URL.Host = t.double.Scheme, t.double.Host
	return t.wire.RoundTrip(redirected)
}

// double is $STS_URL. There is no default: without it the token would go to AWS.
func double() (*url.URL, error) {
	parsed, err := url.Parse(os.Getenv("STS_URL"))
	if err != nil {
		return nil, err
	}
	if parsed.Host == "" {
		return nil, errors.New("STS_URL must be the URL of the STS double")
	}
	return parsed, nil
}

func read() (asked question, err error) {
	// A misspelt name would otherwise look like a token that is refused.
	decoder := json.NewDecoder(os.Stdin)
	decoder.DisallowUnknownFields()
	err = decoder.Decode(&asked)
	return asked, err
}

func write(answer any) {
	encoder := json.NewEncoder(os.Stdout)
	encoder.SetEscapeHTML(false)
	if err := encoder.Encode(answer); err != nil {
		giveUp(err)
	}
}

func giveUp(err error) {
	fmt.Fprintln(os.Stderr, "eks-token-verifier:", err)
	os.Exit(2)
}

func main() {
	sts, err := double()
	if err != nil {
		giveUp(err)
	}
	asked, err := read()
	if err != nil {
		giveUp(err)
	}
	// The verifier's http.Client has no transport of its own, so it takes this one.
	http.DefaultTransport = toDouble{double: sts, wire: http.DefaultTransport}
	found, err := token.NewVerifier(asked.Cluster, asked.Partition, asked.Region).Verify(asked.Token)
	if err != nil {
		write(refusal{err.Error()})
		os.Exit(1)
	}
	write(identity(*found))
}
