// Ports of 127.0.0.1 that stay ours while nothing listens on them.
package main

import (
	"net"
	"os"
	"strconv"

	"golang.org/x/sys/unix"
)

// A reservation is a socket that is bound and never listens.
//
// Picking a free port and letting go of it loses it to whoever connects next: under load that happens, and while the
// API server restarts a client that dials its port over and over can even be given that very port as its source and
// connect to itself. A bound socket keeps everybody else out, and with SO_REUSEPORT the component can still listen.
type reservation struct {
	socket  int
	address string
	port    int
}

func reservePort() (*reservation, error) {
	socket, err := unix.Socket(unix.AF_INET, unix.SOCK_STREAM|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		return nil, os.NewSyscallError("socket", err)
	}
	port, err := bindFreePort(socket)
	if err != nil {
		_ = unix.Close(socket)
		return nil, err
	}
	address := net.JoinHostPort(loopback, strconv.Itoa(port))
	return &reservation{socket: socket, address: address, port: port}, nil
}

func bindFreePort(socket int) (int, error) {
	if err := unix.SetsockoptInt(socket, unix.SOL_SOCKET, unix.SO_REUSEPORT, 1); err != nil {
		return 0, os.NewSyscallError("setsockopt", err)
	}
	if err := unix.Bind(socket, &unix.SockaddrInet4{Addr: [4]byte{127, 0, 0, 1}}); err != nil {
		return 0, os.NewSyscallError("bind", err)
	}
	bound, err := unix.Getsockname(socket)
	if err != nil {
		return 0, os.NewSyscallError("getsockname", err)
	}
	return bound.(*unix.SockaddrInet4).Port, nil
}
