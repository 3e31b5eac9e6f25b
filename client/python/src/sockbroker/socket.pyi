from socket import *
from socket import SocketType as SocketType
