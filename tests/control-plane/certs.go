// The keys and certificates of one control plane: a CA, the API server's certificate, the service-account key.
package main

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/pem"
	"math/big"
	"net"
	"os"
	"time"
)

const (
	// certificateLife is longer than any test and short enough that a leaked one is worth nothing soon.
	certificateLife = 7 * 24 * time.Hour
	// certificateLead covers a clock that is set back a little while a test runs.
	certificateLead = time.Hour
)

// writeCertificates writes all of them below the layout's directory and returns the CA in PEM, for kubeconfigs.
func writeCertificates(l layout) ([]byte, error) {
	caKey, err := newKey()
	if err != nil {
		return nil, err
	}
	ca := certificateTemplate(1, "control-plane test CA")
	// rustls refuses a CA that may not sign certificates.
	ca.IsCA, ca.BasicConstraintsValid = true, true
	ca.KeyUsage = x509.KeyUsageCertSign | x509.KeyUsageCRLSign
	caDER, err := x509.CreateCertificate(rand.Reader, ca, ca, caKey.Public(), caKey)
	if err != nil {
		return nil, err
	}

	servingKey, err := newKey()
	if err != nil {
		return nil, err
	}
	serving := certificateTemplate(2, "kube-apiserver")
	// Clients look at the alternative names only, and rustls wants the purpose spelled out.
	serving.IPAddresses = []net.IP{net.ParseIP(loopback)}
	serving.DNSNames = []string{"localhost", "kubernetes.default.svc"}
	serving.KeyUsage = x509.KeyUsageDigitalSignature
	serving.ExtKeyUsage = []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth}
	servingDER, err := x509.CreateCertificate(rand.Reader, serving, ca, servingKey.Public(), caKey)
	if err != nil {
		return nil, err
	}

	serviceAccountKey, err := newKey()
	if err != nil {
		return nil, err
	}

	caPEM := pemOf("CERTIFICATE", caDER)
	files := map[string][]byte{
		l.caCertificate():      caPEM,
		l.servingCertificate(): pemOf("CERTIFICATE", servingDER),
	}
	for path, key := range map[string]*ecdsa.PrivateKey{
		l.servingKey():        servingKey,
		l.serviceAccountKey(): serviceAccountKey,
	} {
		der, err := x509.MarshalECPrivateKey(key)
		if err != nil {
			return nil, err
		}
		files[path] = pemOf("EC PRIVATE KEY", der)
	}
	for path, content := range files {
		if err := os.WriteFile(path, content, privateFile); err != nil {
			return nil, err
		}
	}
	return caPEM, nil
}

// newKey is an elliptic one because an RSA key takes a tenth of a second of a start that takes a few.
func newKey() (*ecdsa.PrivateKey, error) {
	return ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
}

func certificateTemplate(serial int64, name string) *x509.Certificate {
	now := time.Now()
	return &x509.Certificate{
		SerialNumber: big.NewInt(serial),
		Subject:      pkix.Name{CommonName: name},
		NotBefore:    now.Add(-certificateLead),
		NotAfter:     now.Add(certificateLife),
	}
}

func pemOf(kind string, der []byte) []byte {
	return pem.EncodeToMemory(&pem.Block{Type: kind, Bytes: der})
}
