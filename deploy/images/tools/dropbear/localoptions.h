/* Keys only, one user, no forwarding of X; the modern algorithms of clients of the last ten years. */
#define GPUDEV_KEYS "/gpudev/etc/authorized_keys"
#define DROPBEAR_SVR_PASSWORD_AUTH 0
#define DROPBEAR_CLI_PASSWORD_AUTH 0
#define INETD_MODE 0
#define DROPBEAR_X11FWD 0
#define DO_MOTD 0
#define DROPBEAR_DSS 0
#define DROPBEAR_RSA_SHA1 0
#define DROPBEAR_DH_GROUP14_SHA1 0
#define DROPBEAR_SHA1_HMAC 0
#define SFTPSERVER_PATH "/gpudev/bin/sftp-server"
#define MAX_AUTH_TRIES 20
