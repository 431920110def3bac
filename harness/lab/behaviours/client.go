// A client of Go's net package, driven by harness.lab.behaviours.programs:
//
//	client PORT REQUEST-IN-HEX PATIENCE-IN-MS ADDRESS...
//
// For each address a line: `refused WHY` (no address to Go), `failed WHY`, or `connected SOURCE-PORT ANSWER-IN-HEX`.
package main

import (
	"context"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"strconv"
	"time"
)

// What is not an address goes to DNS, which the lab does not have: that is said at once and not waited for.
var resolver = &net.Resolver{
	PreferGo: true,
	Dial: func(context.Context, string, string) (net.Conn, error) {
		return nil, errors.New("asked of DNS, which is not here")
	},
}

func ask(form, port string, request []byte, patience time.Duration) string {
	dialer := net.Dialer{Timeout: patience, Resolver: resolver}
	connection, err := dialer.Dial("tcp", net.JoinHostPort(form, port))
	if err != nil {
		var unknown *net.DNSError
		if errors.As(err, &unknown) {
			return fmt.Sprintf("refused %v: %v", unknown.Name, unknown.Err)
		}
		return fmt.Sprintf("failed %v", err)
	}
	defer connection.Close()
	connection.SetDeadline(time.Now().Add(patience))
	if _, err = connection.Write(request); err != nil {
		return fmt.Sprintf("failed %v", err)
	}
	answer, err := io.ReadAll(connection)
	if err != nil {
		return fmt.Sprintf("failed %v", err)
	}
	return fmt.Sprintf("connected %d %s", connection.LocalAddr().(*net.TCPAddr).Port, hex.EncodeToString(answer))
}

func main() {
	request, _ := hex.DecodeString(os.Args[2])
	patience, _ := strconv.Atoi(os.Args[3])
	for _, form := range os.Args[4:] {
		fmt.Println(ask(form, os.Args[1], request, time.Duration(patience)*time.Millisecond))
	}
}
