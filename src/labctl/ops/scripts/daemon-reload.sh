# daemon-reload.sh
systemctl daemon-reload
