//! MQTT as pure code: packets and sessions, without sockets, clocks or I/O.

pub mod packet;
